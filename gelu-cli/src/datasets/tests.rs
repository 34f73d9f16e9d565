use super::*;

#[test]
fn names_and_paths_are_told_apart() {
    let parsed = |text: &str| text.parse::<DatasetArg>();
    assert_eq!(parsed("Fashion-MNIST").unwrap().name(), "fashion-mnist");
    assert_eq!(parsed("./mnist").unwrap(), DatasetArg::Path("./mnist".into()));
    assert_eq!(parsed("patients.csv").unwrap().name(), "patients.csv");
    let error = parsed("iriss").unwrap_err();
    assert!(error.contains("iris, diabetes") && error.contains("`iriss`"), "{error}");
}

#[test]
fn options_are_parsed_and_written_back() {
    assert_eq!("0.3".parse(), Ok(TestArg::Share(0.3)));
    assert_eq!("test.csv".parse(), Ok(TestArg::Path("test.csv".into())));
    assert!("1.5".parse::<TestArg>().is_err() && "0".parse::<TestArg>().is_err());
    assert_eq!(parse_missing("drop"), Ok(Missing::Drop));
    assert_eq!(parse_missing("-1"), Ok(Missing::Value("-1".to_owned())));
    assert_eq!(parse_size("28x32"), Ok([28, 32]));
    assert!(["28", "0x5", "2000x5", "axb"].into_iter().all(|text| parse_size(text).is_err()));
    let options = DataOptions {
        label: Some("class".to_owned()),
        missing: Some(Missing::Mean),
        test: Some(TestArg::Share(0.3)),
        transpose: true,
        ..DataOptions::default()
    };
    assert_eq!(options.command(), " --label class --missing mean --test 0.3 --transpose");
    assert_eq!(DataOptions::default().command(), "");
}
