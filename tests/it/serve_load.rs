//! Many streaming clients of one server, a third of them slow or gone before the end: nobody's answer is lost or changed, and
//! memory stays as it is.

use std::io::Read as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::generate::folder;
use crate::serve::{Server, eventually};

/// Answers that run at once.
const LANES: usize = 8;
/// Different requests.
const KINDS: usize = 24;

/// How a client reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Ready,
    /// A few bytes at a time, with pauses.
    Slow,
    /// Closes the connection in the middle.
    Gone,
}

impl Reader {
    /// A third of them are slow or gone.
    fn of(number: usize) -> Self {
        match number % 6 {
            0 => Self::Slow,
            3 => Self::Gone,
            _ => Self::Ready,
        }
    }
}

fn body(kind: usize) -> Value {
    let prompt = ["in the", "he 12", "7", "the in he"][kind % 4];
    let temperature = [0.0, 1.0, 1.7][kind % 3];
    json!({"prompt": prompt, "max_tokens": 4 + kind % 13, "seed": kind, "temperature": temperature, "stream": true})
}

/// The reply as it is read; none of a client that goes away.
fn read(mut stream: TcpStream, reader: Reader) -> Option<String> {
    let mut reply = Vec::new();
    match reader {
        Reader::Ready => drop(stream.read_to_end(&mut reply).unwrap()),
        Reader::Gone => {
            let mut some = [0; 40];
            stream.read_exact(&mut some).unwrap();
            return None;
        }
        Reader::Slow => {
            let mut some = [0; 200];
            loop {
                let read = stream.read(&mut some).unwrap();
                if read == 0 {
                    break;
                }
                reply.extend_from_slice(&some[..read]);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    Some(String::from_utf8(reply).unwrap())
}

/// The text and the end of a streamed answer, which is whole.
fn answer(reply: &str) -> (String, String) {
    assert!(reply.contains("data: [DONE]"), "{reply}");
    let events = reply.lines().filter_map(|line| line.strip_prefix("data: {"));
    let events: Vec<Value> =
        events.map(|event| serde_json::from_str(&format!("{{{event}")).unwrap()).collect();
    let choices = || events.iter().map(|event| &event["choices"][0]);
    let text = choices().filter_map(|choice| choice["text"].as_str()).collect();
    let finish = choices().filter_map(|choice| choice["finish_reason"].as_str()).collect();
    (text, finish)
}

/// Resident bytes of a process.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
}

fn load(clients: usize, requests: usize) {
    let folder = folder();
    let args = ["--deterministic", "--lanes", &LANES.to_string(), "--queue", "4096"];
    let server = Server::start(folder.path(), &args, None);
    let send = |kind: usize| server.send("POST", "/v1/completions", "", &body(kind).to_string());
    let alone: Vec<_> = (0..KINDS).map(|kind| answer(&read(send(kind), Reader::Ready).unwrap())).collect();
    assert!(alone.iter().any(|(text, _)| text.len() > 8), "{alone:?}");
    let (next, finished, gone) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let sizes = Mutex::new(vec![Vec::new(); 4]);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            let (next, finished, gone, sizes, alone, server) =
                (&next, &finished, &gone, &sizes, &alone, &server);
            let run = move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= requests {
                        break;
                    }
                    if number % requests.div_ceil(100) == 0 {
                        sizes.lock().unwrap()[4 * number / requests].push(resident(server.process.id()));
                    }
                    let kind = number * 7 / 6 % KINDS;
                    match read(send(kind), Reader::of(number)) {
                        Some(reply) => {
                            assert_eq!(answer(&reply), alone[kind], "request {number}");
                            finished.fetch_add(1, Ordering::Relaxed);
                        }
                        None => drop(gone.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, run).unwrap();
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let (finished, gone) = (finished.into_inner(), gone.into_inner());
    assert_eq!(finished + gone, requests);
    assert!(gone > 0 && finished > gone);
    eventually(|| {
        server.metric("vllm:num_requests_running") == 0.0 && server.metric("moac:kv_bytes_used") == 0.0
    });
    // All slabs at once: none of them is missing.
    let every =
        json!({"prompt": "in", "max_tokens": 900, "n": LANES, "temperature": 2, "stop": ["a", "e", "1"]});
    let (status, reply) = server.post("/v1/completions", &every);
    assert_eq!((status, reply["choices"].as_array().map(Vec::len)), (200, Some(LANES)), "{reply}");
    assert_eq!(server.panics(), 0);
    let means: Vec<u64> = sizes
        .into_inner()
        .unwrap()
        .iter()
        .map(|sizes| sizes.iter().sum::<u64>() / sizes.len().max(1) as u64)
        .collect();
    eprintln!(
        "{clients} clients, {requests} requests in {seconds:.1} s: {finished} finished, {gone} cut off; resident bytes by quarter {means:?}"
    );
    if requests >= 10_000 {
        assert!(means[3].abs_diff(means[1]) * 20 <= means[1], "{means:?}");
    }
}

#[test]
fn many_clients_get_their_answers() {
    load(20, 300);
}

#[test]
#[ignore = "minutes: 10,000 requests of 200 clients"]
fn very_many_clients_get_their_answers_in_the_same_memory() {
    load(200, 10_000);
}
