//! The server does what `runtime/server/README.md` and `/openapi.json` say.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::compile::{finish, moac};
use crate::generate::folder;
use crate::serve::Server;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// The words of a text that stand between backticks.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_document_has_every_setting_and_the_example_is_taken() {
    let document = read("runtime/server/README.md");
    let (_, table) = document.split_once("| setting |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let told: BTreeSet<&str> =
        table.lines().skip(2).flat_map(|line| quoted(line.split('|').nth(1).unwrap())).collect();
    let folder = folder();
    let (_, help, _) = finish(&mut moac(folder.path(), &["serve", "--help"]));
    let flags = help.lines().filter_map(|line| line.strip_prefix("      --")?.split([' ', '[']).next());
    // These say what to do; the rest are settings.
    let others = ["config", "dry-run", "json", "color", "no-progress"];
    let mut known: BTreeSet<&str> = flags.filter(|flag| !others.contains(flag)).collect();
    known.insert("model");
    assert_eq!(told, known);
    let example = read("runtime/server/deploy/serve.toml");
    let lines = example
        .lines()
        .map(|line| if line.starts_with("model") { "model = 'tiny'\nplan = 'narrow.json'\n" } else { line })
        .filter(|line| !line.starts_with("plan") && !line.starts_with("lengths"));
    std::fs::write(folder.path().join("serve.toml"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    crate::generate::narrow(folder.path());
    let (code, offer, stderr) =
        finish(&mut moac(folder.path(), &["serve", "--dry-run", "--json", "--config", "serve.toml"]));
    assert_eq!(code, Some(0), "{stderr}");
    let offer: Value = serde_json::from_str(&offer).unwrap();
    assert_eq!((&offer["model"], &offer["lanes"]), (&json!("assistant"), &json!(64)));
    let room = &offer["contexts"][0];
    assert!(room["slab_bytes"].as_u64() < room["dense_bytes"].as_u64(), "{offer}");
}

#[test]
fn metrics_are_as_prometheus_reads_them_and_the_document_has_them_all() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--name", "a \"b\""], None);
    let body = json!({"prompt": "in the", "max_tokens": 5, "temperature": 0});
    assert_eq!(server.post("/v1/completions", &body).0, 200);
    let (status, text) = server.ask("GET", "/metrics", "", "");
    assert_eq!(status, 200);
    let document = read("runtime/server/README.md");
    let told = quoted(&document);
    let mut name = "";
    let mut buckets = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            name = rest.split(' ').next().unwrap();
            assert!(told.contains(name), "{name} is not in the document");
            continue;
        }
        if line.starts_with("# TYPE ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let labels = series.strip_prefix(name).unwrap();
        let label = "model_name=\"a \\\"b\\\"\"";
        assert_eq!(labels.contains(label), name.starts_with("vllm:"), "{line}");
        if labels.starts_with("_bucket") {
            buckets.push(value);
        } else if labels.starts_with("_count") {
            assert!(buckets.is_sorted() && buckets.last() == Some(&value), "{line} after {buckets:?}");
            buckets.clear();
        }
    }
    assert_eq!(server.metric("vllm:prompt_tokens_total") as u64, 2);
    assert_eq!(server.metric("vllm:request_prompt_tokens_sum") as u64, 2);
    assert_eq!(server.metric("vllm:request_generation_tokens_count") as u64, 1);
    assert_eq!(server.metric("vllm:e2e_request_latency_seconds_count") as u64, 1);
}

#[test]
fn the_description_has_every_field_that_is_read() {
    let text = read("runtime/server/src/api/mod.rs");
    let calls = ["fields.take(\"", "fields.need(\""].map(|call| text.split(call).skip(1));
    let read: BTreeSet<&str> =
        calls.into_iter().flatten().filter_map(|rest| rest.split('"').next()).collect();
    let folder = folder();
    let server = Server::start(folder.path(), &[], None);
    let description: Value = serde_json::from_str(&server.ask("GET", "/openapi.json", "", "").1).unwrap();
    let mut told = BTreeSet::new();
    for schema in ["Common", "Completion", "Chat"] {
        let properties = description["components"]["schemas"][schema]["properties"].as_object().unwrap();
        told.extend(properties.keys().map(String::as_str));
        // No field takes a list of one object with a wrong field, and each is named.
        for field in properties.keys() {
            let path = if schema == "Chat" { "/v1/chat/completions" } else { "/v1/completions" };
            let mut body =
                json!({"prompt": "in", "messages": [{"role": "user", "content": "in"}], "max_tokens": 1});
            body[field] = json!([{"no": 1}]);
            let (status, reply) = server.post(path, &body);
            assert_eq!((status, &reply["error"]["param"]), (400, &json!(field)), "{reply}");
        }
    }
    assert_eq!(read, told);
}
