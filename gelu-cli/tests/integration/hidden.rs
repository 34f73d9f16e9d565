//! Models that the client does not see, on one machine, as a user runs them.

use serde_json::Value;

use crate::common::{Folder, fail, succeed};

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&succeed(arguments, Folder::new().0.path())).unwrap()
}

#[test]
fn the_demo_tells_ahead_from_online_and_what_was_revealed() {
    let folder = Folder::new();
    let out = folder.path("out").display().to_string();
    let demo = ["demo", "--hide-model", "--key-bits", "1024", "--per-digit", "1", "--out", &out];
    let report = json(&[&demo[..], &["--json"]].concat());
    assert!(report["correct"].as_u64().unwrap() >= 9, "{report}");
    assert_eq!((&report["mode"], &report["reveal"]), (&"hidden".into(), &"logits".into()));
    assert_eq!((&report["prepared"], &report["round_trips"]), (&10.into(), &5.into()));
    let steps = report["steps"].as_array().unwrap();
    let sum = |phase: &str, field: &str| -> u64 {
        let of = steps.iter().filter(|step| step["phase"] == phase && step["party"] == "server");
        of.map(|step| step[field].as_u64().unwrap()).sum()
    };
    assert!(sum("ahead", "products") > 0 && sum("online", "products") == 0);
    assert_eq!(report["ahead"]["bytes_down"], sum("ahead", "bytes_out"));
    assert_eq!(report["online"]["bytes_down"], sum("online", "bytes_out"));
    let online = steps.iter().filter(|step| step["phase"] == "online");
    assert!(online.clone().count() == 10 * 5 * 2 && online.clone().all(|step| step["saw"] == "masked"));

    let text = succeed(&[&demo[..], &["--reveal", "class"]].concat(), folder.0.path());
    for expected in ["garble conv1+pool1", "the client learns the class", "of the network the classes only"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

/// The plan says before anything runs what then crosses.
#[test]
fn the_plan_of_a_hidden_model_is_what_runs() {
    let plan =
        json(&["plan", "--hide-model", "--prepare", "4", "--key-bits", "1024", "--model", "conv1", "--json"]);
    let folder = Folder::new();
    let out = folder.path("digit.png").display().to_string();
    image::GrayImage::from_fn(64, 64, |x, y| {
        image::Luma([if x.abs_diff(32) < 3 && y.abs_diff(32) < 20 { 10 } else { 250 }])
    })
    .save(&out)
    .unwrap();
    let infer = [
        "infer",
        "--hide-model",
        "--prepare",
        "4",
        "--model",
        "conv1",
        "--key-bits",
        "1024",
        "--images",
        &out,
    ];
    let report = json(&[&infer[..], &["--json"]].concat());
    assert_eq!((&report["ands"], &report["round_trips"]), (&plan["ands"], &plan["round_trips"]));
    assert_eq!(
        report["server"]["products"],
        plan["products"].as_u64().unwrap() + plan["squarings"].as_u64().unwrap()
    );
    let number = |value: &Value| value.as_u64().unwrap();
    for (name, planned) in [("bytes_up", "online_bytes_up"), ("bytes_down", "online_bytes_down")] {
        let (found, planned) = (number(&report["online"][name]), number(&plan[planned]));
        assert!(found > planned && found < planned + 1000, "{name}: {found}, {planned}");
    }
    let ahead = number(&report["ahead"]["bytes_down"]);
    assert!(ahead > 4 * number(&plan["table_bytes"]), "{ahead}");
    let text = succeed(&["plan", "--hide-model", "--model", "conv1", "--key-bits", "1024"], folder.0.path());
    assert!(text.contains("online: 2 round trips an image") && text.contains("ANDs"), "{text}");
    let class = json(&[&infer[..], &["--reveal", "class", "--logits", "--json"]].concat());
    assert_eq!(class["predictions"], report["predictions"]);
    assert_eq!((&class["logits"], &class["rows"][0]["confidence"]), (&Value::Null, &Value::Null));
}

#[test]
fn figures_of_a_hidden_model_come_step_by_step() {
    let quick =
        ["bench", "--hide-model", "--model", "conv1", "--key-bits", "1024", "--runs", "1", "--prepare", "2"];
    let report = json(&[&quick[..], &["--json"]].concat());
    for figure in ["seconds_ahead_a_query", "seconds_online", "bytes_down_online", "limit_ns"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    // Masks of two layers, circuits of one, and two layers online, on both sides.
    assert_eq!(report["steps"].as_array().unwrap().len(), 2 * (2 + 1 + 2));
    let error = fail(&[&quick[..], &["--svg", "a.svg"]].concat(), Folder::new().0.path(), 2);
    assert!(error.contains("--svg would change nothing"), "{error}");
}

#[test]
fn options_about_hidden_models_are_refused_where_none_is_hidden() {
    for command in ["infer", "demo", "plan", "bench"] {
        for option in [["--reveal", "class"], ["--prepare", "3"]] {
            let mut arguments = vec![command];
            arguments.extend(if command == "infer" { &["--images", "a.png"][..] } else { &[] });
            arguments.extend(option);
            let error = fail(&arguments, Folder::new().0.path(), 2);
            assert!(error.contains(&format!("{} would change nothing", option[0])), "{command}: {error}");
        }
    }
}
