//! The server's page in a real browser, with the keyboard alone: a question is asked, text streams in, the numbers move, and
//! nothing is cut off at any width, light or dark. Without Chromium nothing is tested.

use crate::browser::{self, Browser};
use crate::generate::{folder, narrow};
use crate::serve::{Server, eventually};

/// Keys and values of a token in all of the model's heads: three layers of two heads of 64, four bytes each.
const ROW: u64 = 3 * 2 * 64 * 2 * 4;
const SPAN: u64 = 128;
const KIB: f64 = 1024.0;
const OVER: &str = "document.getElementById('stop').disabled";
const FOCUS: &str = "document.activeElement?.id";

fn number(browser: &mut Browser, id: &str) -> u64 {
    browser.text(id).parse().unwrap_or(0)
}

#[test]
fn a_question_is_answered_and_the_numbers_move() {
    let Some(name) = browser::find() else { return };
    let folder = folder();
    let (plan, _) = narrow(folder.path());
    let server = Server::start(folder.path(), &["--plan", plan.to_str().unwrap()], Some("secret"));
    let browser = &mut Browser::start(name);
    browser.screen(1400, false);
    browser.open(&format!("http://{}/", server.address));
    // The key: a wrong one is asked for again, and the right one is kept for as long as the tab is there.
    for key in ["wrong", "secret"] {
        browser.wait(&format!("{FOCUS} === 'secret' && document.getElementById('error').textContent !== ''"));
        browser.value("document.getElementById('error').textContent = ''");
        assert_eq!(browser.faults(390, false), [""; 0]);
        browser.write(key);
        browser.press("Enter", false);
    }
    browser.wait(&format!("{FOCUS} === 'question' && document.getElementById('key').hidden"));
    assert_eq!(
        browser.value("[Object.values(sessionStorage).join(), localStorage.length].join()"),
        "secret,0"
    );
    assert_eq!(browser.text("model"), "tiny");
    assert_eq!(browser.value("document.querySelectorAll('#map rect').length"), 3 * 2);

    // Shift+Enter is a new line, and what is said is never HTML.
    let question = "<img src=x onerror=stop()> in the 12";
    browser.write(question);
    browser.press("Enter", true);
    browser.write("he");
    assert_eq!(browser.value("document.getElementById('question').value"), format!("{question}\nhe"));
    browser.value(
        "seen = []; new MutationObserver(() => seen.push(document.getElementById('turns').lastChild.innerText.length)) \
         .observe(document.getElementById('turns'), { subtree: true, childList: true })",
    );
    browser.press("Enter", false);
    browser.wait("document.querySelectorAll('#turns li').length === 2");
    assert!(browser.text("turns").starts_with(&format!("You\n{question}\nhe\nModel")));
    assert_eq!(browser.value("document.querySelectorAll('#turns img').length"), 0);
    // The model is a random one and may end at once: it is asked until an answer is long enough to be stopped.
    let stopped = "vllm:request_success_total{model_name=\"tiny\",finished_reason=\"abort\"}";
    let mut turns = 0;
    while server.metric(stopped) == 0.0 && turns < 20 {
        turns += 1;
        browser.wait(&format!(
            "{OVER} || document.querySelector('#turns li:last-child div').textContent.length > 20"
        ));
        browser.press("Escape", false);
        browser.wait(OVER);
        browser.value("document.getElementById('question').focus()");
        browser.write("in the");
        browser.press("Enter", false);
    }
    assert!(server.metric(stopped) > 0.0);
    browser.press("Escape", false);
    browser.wait(OVER);
    eventually(|| server.metric("vllm:num_requests_running") == 0.0);
    assert!(browser.value("new Set(seen).size > 10").as_bool().unwrap(), "text did not stream in");
    assert_eq!(browser.text("error"), "");
    let elsewhere =
        "performance.getEntriesByType('resource').filter(of => !of.name.startsWith(location.origin)).length";
    assert_eq!(browser.value(elsewhere), 0);

    // The numbers are the plan's.
    let tokens = number(browser, "tokens");
    let kib = |tokens: u64| format!("{:.1} KiB", (tokens * ROW) as f64 / KIB);
    assert!(tokens > 20, "{tokens}");
    assert_eq!(browser.text("held"), kib(tokens.min(SPAN)));
    if tokens * ROW < 1 << 20 {
        assert_eq!(browser.text("dense"), kib(tokens));
    }
    assert!(browser.text("speed").parse::<f64>().unwrap() > 0.0);
    let reserved = browser.text("reserved");
    assert!(reserved.contains(&format!("Reserved for 1024 tokens: {}, 12.5%", kib(SPAN))), "{reserved}");
    let kept = server.metric("moac:conversations_kept") as u64;
    assert_eq!(server.metric("moac:kv_bytes_kept") as u64, kept * SPAN * ROW);

    // By Tab from the question through the rest, past what cannot be pressed now.
    browser.value("document.getElementById('question').focus()");
    for id in ["send", "new", "context"] {
        browser.press("Tab", false);
        assert_eq!(browser.value(FOCUS), id);
    }
    for (width, dark) in [(1400, false), (390, true), (1400, true), (390, false)] {
        assert_eq!(browser.faults(width, dark), [""; 0], "{width} {dark}");
        assert_eq!(browser.value("matchMedia('(prefers-color-scheme: dark)').matches"), dark);
        assert_eq!(browser.value("innerWidth"), width);
    }
}
