//! `gelu-web-bindgen FILE.wasm FOLDER NAME [node]`: makes the modules `NAME.js` and `NAME_bg.wasm`, for the web or for Node.

use anyhow::{Context, bail};
use wasm_bindgen_cli_support::Bindgen;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, folder, name, rest @ ..] = &arguments[..] else {
        bail!("expected FILE.wasm FOLDER NAME [node], found {arguments:?}")
    };
    let mut bindgen = Bindgen::new();
    match rest {
        [] => bindgen.web(true)?,
        [target] if target == "node" => bindgen.nodejs(true)?,
        _ => bail!("expected nothing or node after NAME, found {rest:?}"),
    };
    bindgen.input_path(input).out_name(name).typescript(false).remove_producers_section(true);
    bindgen.generate(folder).with_context(|| format!("{input} to {folder}"))
}
