//! The engine's thread and its handles.

use std::time::{Duration, Instant};

use super::fake::{FATAL, Fake, answer};
use super::schedules::{LENGTHS, model, plan};
use crate::engine::runner::{Bucket, Limits};
use crate::engine::{Engine, EngineError, EngineOptions, Event, Finish, Refused, Request};
use crate::{CpuOptions, CpuRunner};

fn fake(queue: usize) -> Engine {
    let bucket = |length, slab_bytes| Bucket { length, slab_bytes, intact: 64 };
    let buckets = vec![bucket(64, 10), bucket(1 << 20, 20)];
    let limits = Limits { lanes: 2, rows: 34, buckets, slab_bytes: 40, vocab: 1 << 20, deterministic: false };
    let options = EngineOptions { queue, chunk: 32, ..EngineOptions::default() };
    Engine::start(Fake::new(limits, 32), None, options).unwrap()
}

/// A request that runs until it is cancelled.
fn endless() -> Request {
    Request::new(vec![1], 1 << 19)
}

#[track_caller]
fn eventually(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never happens");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn many_threads_get_their_own_answers() {
    let engine = fake(1000);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let engine = &engine;
            scope.spawn(move || {
                for n in 0..20 {
                    let mut request = Request::new(vec![thread, n, 7], 6);
                    request.n = 1 + n % 2;
                    let answers = engine.submit(request.clone()).unwrap().answers().unwrap();
                    for (choice, of) in (0..).zip(answers) {
                        assert_eq!(of.tokens, answer(&request, choice, 6));
                    }
                }
            });
        }
    });
    eventually(|| engine.stats().running == 0 && engine.stats().waiting == 0);
    assert_eq!(engine.stats().slab_bytes, 0);
    assert_eq!(engine.stats().answer_tokens, 8 * 10 * (6 + 12));
}

#[test]
fn the_queue_has_an_end_and_a_place_that_is_left_is_free() {
    let engine = fake(2);
    let running: Vec<_> = (0..2).map(|_| engine.submit(endless()).unwrap()).collect();
    eventually(|| engine.stats().running == 2);
    let waiting: Vec<_> = (0..2).map(|_| engine.submit(endless()).unwrap()).collect();
    assert!(matches!(engine.submit(endless()), Err(Refused::QueueFull { limit: 2 })));
    // One that waits goes without ever having run; one that runs makes room.
    waiting[1].cancel();
    let [first, second] = <[_; 2]>::try_from(waiting).unwrap();
    assert!(second.answers().unwrap()[0].tokens.is_empty());
    drop(running);
    assert!(first.take(5).all(|event| matches!(event, Event::Token(_))));
    eventually(|| engine.stats().running == 0 && engine.stats().slab_bytes == 0);
}

#[test]
fn a_cancelled_request_ends_with_what_it_has() {
    let engine = fake(9);
    let mut stream = engine.submit(endless()).unwrap();
    let some: Vec<_> = stream.by_ref().take(10).collect();
    assert_eq!(some.len(), 10);
    stream.cancel();
    let last = stream.last().unwrap();
    assert!(matches!(last, Event::End(end) if end.finish == Finish::Cancelled && end.tokens >= 10));
}

#[test]
fn shutting_down_finishes_what_runs_and_dropping_does_not() {
    let engine = fake(9);
    let request = Request::new(vec![4], 1000);
    let streams: Vec<_> = (0..5).map(|_| engine.submit(request.clone()).unwrap()).collect();
    engine.shut_down();
    for stream in streams {
        assert_eq!(stream.answers().unwrap()[0].tokens.len(), 1000);
    }
    let engine = fake(9);
    let stream = engine.submit(endless()).unwrap();
    drop(engine);
    assert!(matches!(stream.answers(), Err(EngineError::ShutDown)));
}

#[test]
fn a_device_that_fails_ends_all_with_the_reason() {
    let engine = fake(9);
    let stream = engine.submit(endless()).unwrap();
    let fatal = engine.submit(Request::new(vec![FATAL], 1)).unwrap();
    for stream in [stream, fatal] {
        assert!(stream.answers().unwrap_err().to_string().contains("the device is gone"));
    }
    let error = engine.submit(endless()).unwrap_err().to_string();
    assert!(error.contains("the device is gone"), "{error}");
}

#[test]
fn requests_that_can_never_run_are_refused() {
    let engine = fake(9);
    let of = |change: &dyn Fn(&mut Request)| {
        let mut request = Request::new(vec![1, 2], 3);
        change(&mut request);
        engine.submit(request).unwrap_err().to_string()
    };
    for (change, expected) in [
        (
            &(|request: &mut Request| request.prompt.clear()) as &dyn Fn(&mut Request),
            "the number of tokens is 0",
        ),
        (&|request| request.prompt[1] = 1 << 20, "below the vocabulary's 1048576"),
        (&|request| request.prompt = vec![1; (1 << 20) + 1], "more than the context of 1048576"),
        (&|request| request.context = Some(u32::MAX), "the longest available has 1048576"),
        (
            &|request| (request.prompt, request.context) = (vec![1; 65], Some(64)),
            "more than the context of 64",
        ),
        (&|request| request.n = 0, "the number of answers is 0"),
        (&|request| request.n = 3, "the number of answers is 3, expected 1 to 2"),
        (&|request| request.sampling.top_p = 0.0, "top-p is 0"),
        (&|request| request.top_logprobs = u32::MAX, "the number of likeliest tokens"),
        (&|request| request.stop_strings = vec![String::new()], "a stop string is empty"),
        (&|request| request.stop_strings = vec!["a".into()], "no tokenizer"),
    ] {
        let error = of(change);
        assert!(error.contains(expected), "{error}");
    }
    let options = CpuOptions { slab_bytes: Some(1000), ..CpuOptions::default() };
    let runner = CpuRunner::new(model().decoder.clone(), &plan(), &LENGTHS, &options).unwrap();
    let engine = Engine::start(runner, Some(model().tokenizer.clone()), EngineOptions::default()).unwrap();
    let error = engine.submit(Request::new(vec![1], 1)).unwrap_err();
    assert!(matches!(error, Refused::TooLarge { available: 1000, length: 128, .. }), "{error}");
    for (lengths, lanes) in [(&[100][..], 1), (&[], 1), (&[128], 0)] {
        let options = CpuOptions { lanes, ..CpuOptions::default() };
        assert!(CpuRunner::new(model().decoder.clone(), &plan(), lengths, &options).is_err());
    }
}
