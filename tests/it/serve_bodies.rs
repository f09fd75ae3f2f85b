//! Bodies that the server's own description allows, bodies that it does not, and bytes that are none: the reply is an answer or
//! a 4xx of the protocol's shape, and the server goes on.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};

use crate::generate::folder;
use crate::serve::{Server, eventually};

/// Numbers that look random: the same seed gives the same body.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn percent(&mut self, share: usize) -> bool {
        self.below(100) < share
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// The server's description, and values that it allows.
struct Description(Value);

impl Description {
    fn resolve<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(path) => self.0.pointer(path.trim_start_matches('#')).unwrap(),
            None => schema,
        }
    }

    /// The addresses that take bodies, and the schemas of those.
    fn addresses(&self) -> Vec<(String, &Value)> {
        let paths = self.0["paths"].as_object().unwrap();
        let bodies = paths.iter().filter_map(|(path, methods)| {
            let schema = methods.pointer("/post/requestBody/content/application~1json/schema")?;
            Some((path.clone(), self.resolve(schema)))
        });
        bodies.collect()
    }

    /// All properties of an object, and whether each is required.
    fn properties<'a>(&'a self, schema: &'a Value) -> Vec<(&'a str, &'a Value, bool)> {
        let mut found = Vec::new();
        for part in schema["allOf"].as_array().into_iter().flatten() {
            found.extend(self.properties(self.resolve(part)));
        }
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            found.push((name, property, required.contains(&name.as_str())));
        }
        found
    }

    /// A value that a schema allows, mostly.
    fn value(&self, schema: &Value, random: &mut Random) -> Value {
        let schema = self.resolve(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            return self.value(random.one(any), random);
        }
        if let Some(values) = schema["enum"].as_array() {
            return random.one(values).clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => random.one(kinds).as_str().unwrap(),
            kind => kind.as_str().unwrap_or("null"),
        };
        let bound = |name: &str, default: f64| schema[name].as_f64().unwrap_or(default);
        match kind {
            "boolean" => json!(random.percent(50)),
            "integer" => {
                let (low, high) = (bound("minimum", 0.0) as i64, bound("maximum", 300.0) as i64);
                let small = (low.max(0) + random.below(4) as i64).min(high);
                json!(if random.percent(90) { small } else { *random.one(&[low, high]) })
            }
            "number" => {
                let (low, high) = (bound("minimum", 0.0), bound("maximum", 2.0));
                json!(low + (high - low) * (1 + random.below(100)) as f64 / 100.0)
            }
            "string" => json!(if schema["maxLength"] == 0 { "" } else { *random.one(&TEXTS) }),
            "array" => {
                let least = bound("minItems", 0.0) as usize;
                let most = (bound("maxItems", 3.0) as usize).min(least + 2);
                let count = least + random.below(most - least + 1);
                Value::Array((0..count).map(|_| self.value(&schema["items"], random)).collect())
            }
            "object" => self.object(schema, random, 50, 0),
            _ => Value::Null,
        }
    }

    /// An object with the required properties and some others, a share of them of any value at all.
    fn object(&self, schema: &Value, random: &mut Random, others: usize, wrong: usize) -> Value {
        let mut object = Map::new();
        for (name, property, required) in self.properties(schema) {
            if random.percent(if required { 98 } else { others }) {
                let any = random.percent(wrong);
                let value = if any { anything(random, 0) } else { self.value(property, random) };
                object.insert(name.to_owned(), value);
            }
        }
        Value::Object(object)
    }

    /// A body, or something like one.
    fn body(&self, schema: &Value, random: &mut Random) -> Vec<u8> {
        if random.percent(5) {
            return (0..random.below(300)).map(|_| random.next() as u8).collect();
        }
        let mut body = self.object(schema, random, 15, 5);
        if random.percent(10) {
            body[*random.one(&["user", "metadata", "\u{0}", "Prompt"])] = anything(random, 0);
        }
        // What is tried is the reading of bodies: most answers are short.
        if body["max_tokens"].is_null() && random.percent(95) {
            body["max_tokens"] = json!(random.below(3));
        }
        let mut bytes = body.to_string().into_bytes();
        if random.percent(15) {
            for _ in 0..=random.below(4) {
                let place = random.below(bytes.len());
                match random.below(4) {
                    0 => bytes[place] = random.next() as u8,
                    1 => bytes.truncate(place.max(1)),
                    2 => bytes.insert(place, *random.one(b"{}[]\",:0e-\\\xff")),
                    _ => drop(bytes.remove(place)),
                }
                if bytes.is_empty() {
                    break;
                }
            }
        }
        bytes
    }
}

const TEXTS: [&str; 9] =
    ["in the", "he 12", "7", "tiny", "", "user", "assistant", "é\u{1F600}\u{0}", "<|end|>"];

/// Any value at all.
fn anything(random: &mut Random, depth: usize) -> Value {
    match random.below(if depth < 4 { 9 } else { 6 }) {
        0 => Value::Null,
        1 => json!(random.percent(50)),
        2 => json!(*random.one(&[-1_i64, 0, 1, 1 << 31, 1 << 32, i64::MAX, i64::MIN])),
        3 => json!(*random.one(&[0.5, -0.0, 1e308, -1e308, 1e-320, 3.999])),
        4 => json!(*random.one(&TEXTS)),
        5 => json!("7".repeat(random.below(2000))),
        6 => Value::Array((0..random.below(4)).map(|_| anything(random, depth + 1)).collect()),
        7 => (0..200).fold(json!([]), |inner, _| json!([inner])),
        _ => {
            let fields =
                (0..random.below(4)).map(|_| ((*random.one(&TEXTS)).to_owned(), anything(random, depth + 1)));
            Value::Object(fields.collect())
        }
    }
}

/// A connection for many requests.
struct Connection(BufReader<TcpStream>);

impl Connection {
    /// (status, body)
    fn post(&mut self, path: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
        let status = self.line().split(' ').nth(1).unwrap().parse().unwrap();
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            chunked |= line == "transfer-encoding: chunked";
        }
        let mut reply = Vec::new();
        if !chunked {
            self.take(length, &mut reply);
            return (status, reply);
        }
        loop {
            let size = usize::from_str_radix(&self.line(), 16).unwrap();
            self.take(size, &mut reply);
            assert_eq!(self.line(), "");
            if size == 0 {
                return (status, reply);
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.strip_suffix("\r\n").expect("the server cut the connection").to_owned()
    }

    fn take(&mut self, bytes: usize, to: &mut Vec<u8>) {
        (&mut self.0).take(bytes as u64).read_to_end(to).unwrap();
    }
}

fn bodies(count: usize) {
    const CONNECTIONS: usize = 16;
    let folder = folder();
    let server =
        Server::start_with(folder.path(), &["--lengths", "128", "--chat-tokens", "3", "--lanes", "16"], None);
    let known = json!({"prompt": "in the", "max_tokens": 8, "temperature": 0});
    let before = server.post("/v1/completions", &known).1["choices"].clone();
    let (status, text) = server.ask("GET", "/openapi.json", "", "");
    assert_eq!(status, 200);
    let description = Description(serde_json::from_str(&text).unwrap());
    let addresses = description.addresses();
    assert_eq!(addresses.len(), 2);
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for first in 0..CONNECTIONS {
            let (server, description, addresses) = (&server, &description, &addresses);
            let (answered, refused) = (&answered, &refused);
            scope.spawn(move || {
                let mut connection = Connection(BufReader::new(TcpStream::connect(&server.address).unwrap()));
                for number in (first..count).step_by(CONNECTIONS) {
                    let mut random = Random(number as u64);
                    let (path, schema) = random.one(addresses);
                    let body = description.body(schema, &mut random);
                    let (status, reply) = connection.post(path, &body);
                    let shown = || (number, String::from_utf8_lossy(&body), String::from_utf8_lossy(&reply));
                    if status == 200 {
                        answered.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    assert!((400..500).contains(&status), "{status} {:?}", shown());
                    let reply: Value = serde_json::from_slice(&reply).unwrap_or_default();
                    assert!(reply["error"]["message"].is_string(), "{:?}", shown());
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    eprintln!("{count} bodies: {answered} answered, {refused} refused");
    assert!(answered * 10 > count && refused * 10 > count, "one kind is hardly there: {answered}, {refused}");
    assert_eq!(server.panics(), 0);
    assert_eq!(server.post("/v1/completions", &known).1["choices"], before);
    eventually(|| server.metric("moac:kv_bytes_used") == 0.0);
}

#[test]
fn a_body_is_answered_or_refused() {
    bodies(400);
}

#[test]
#[ignore = "minutes: 100,000 bodies"]
fn very_many_bodies_are_answered_or_refused() {
    bodies(100_000);
}
