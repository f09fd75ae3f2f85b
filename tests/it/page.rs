//! The page of `moac inspect --html` in a real browser: at two widths, light and dark, nothing is cut off, runs out of
//! the page or lies on something else, the map uses its room, and text can be read. Without Chromium nothing is tested.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::{browser, plans};

const SCRIPT: &str = concat!(include_str!("layout.js"), include_str!("page.js"));

/// The script's report on a page.
#[derive(Debug, Deserialize)]
struct Report {
    width: u32,
    dark: bool,
    cells: usize,
    found: Vec<String>,
}

/// The page of a file, with the script in it.
fn page(folder: &Path, file: &Path) -> PathBuf {
    let html = folder.join("page.html");
    let args = ["inspect", file.to_str().unwrap(), "--html", html.to_str().unwrap()];
    let run = Command::new(env!("CARGO_BIN_EXE_moac-under-test")).args(args).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let page = std::fs::read_to_string(&html).unwrap();
    std::fs::write(&html, page.replace("</body>", &format!("<script>{SCRIPT}</script></body>"))).unwrap();
    html
}

/// The script's report on the page in a frame of a given width: Chromium's own windows are at least 500 pixels wide.
fn look(browser: &str, page: &Path, width: u32, dark: bool) -> Report {
    let folder = page.parent().unwrap();
    let frame = folder.join("frame.html");
    std::fs::write(
        &frame,
        format!(
            "<!DOCTYPE html><pre id=\"found\"></pre><iframe src=\"page.html\" style=\"border: 0\" width=\"{width}\" height=\"4000\">"
        ),
    )
    .unwrap();
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"])
        .args(["--window-size=1500,4200", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", i32::from(!dark)))
        .arg(format!("file://{}", frame.display()))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let dom = String::from_utf8(output.stdout).unwrap();
    let found = dom.split_once("id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>")).unwrap().0;
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: `{found}`"))
}

#[test]
fn nothing_is_cut_off_at_any_width_light_or_dark() {
    let Some(browser) = browser::find() else { return };
    let folder = tempfile::tempdir().unwrap();
    let plan = |name: &str| plans::folder().join(name);
    // An artifact has a digest and figures of its kernels too.
    let artifact = folder.path().join("sample.moac");
    std::fs::write(&artifact, crate::artifact::bytes()).unwrap();
    // A name without a break, a long text and deep values in the provenance.
    let mut long = plans::shipped("dense");
    long.model.name = "a".repeat(60);
    long.provenance =
        Some(serde_json::json!({ "command": "b".repeat(400), "a": { "b": { "c": { "d": [1, 2] } } } }));
    let strange = folder.path().join("strange.json");
    std::fs::write(&strange, serde_json::to_string(&long).unwrap()).unwrap();
    let files = [
        plan("smollm2-135m-0.125.json"),
        plan("llama-3-8b.json"),
        plan("one-rule-per-head.json"),
        artifact,
        strange,
    ];
    for file in files {
        let page = page(folder.path(), &file);
        for (width, dark) in [(1400, false), (390, true), (1400, true), (390, false)] {
            let report = look(browser, &page, width, dark);
            assert_eq!((report.width, report.dark), (width, dark));
            assert!(
                report.cells > 0 && report.found.is_empty(),
                "{} at {width}: {report:#?}",
                file.display()
            );
        }
    }
}
