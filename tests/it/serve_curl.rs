//! Transcripts of `curl`, a second client that knows nothing of this project: what it shows is compared word by word.

use std::path::Path;
use std::process::Command;

use crate::generate::folder;
use crate::serve::Server;

/// The reply with what differs from run to run replaced.
fn masked(text: &str) -> String {
    let mut masked = text.to_owned();
    for (before, mask) in [("\"id\":\"cmpl-", "ID"), ("\"id\":\"chatcmpl-", "ID"), ("\"created\":", "TIME")] {
        let mut parts = masked.split(before);
        let mut out = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = part.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(part.len());
            out.extend([before, mask, &part[end..]]);
        }
        masked = out;
    }
    masked
}

#[test]
fn curl_sees_what_the_transcript_shows() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("serve/curl.txt");
    let transcript = std::fs::read_to_string(path).unwrap();
    let folder = folder();
    let server = Server::start(folder.path(), &[], Some("secret"));
    let mut found = String::new();
    for command in transcript.lines().filter_map(|line| line.strip_prefix("$ ")) {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env("SERVER", format!("http://{}", server.address)).env("KEY", "secret");
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let reply = masked(String::from_utf8(output.stdout).unwrap().trim_end());
        found.extend(["$ ", command, "\n", &reply, "\n"]);
    }
    assert!(found == transcript, "found:\n{found}");
}
