//! The scheduler on the fake runner: thousands of random schedules, of which each request's tokens, the order of arrival, the
//! budgets and the end of everything are checked.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::Heard;
use super::fake::{FATAL, Fake, POISON, SMALL, answer};
use crate::engine::job::{Job, Ticket};
use crate::engine::runner::{Bucket, Limits};
use crate::engine::scheduler::Scheduler;
use crate::engine::{Answer, EngineError, EngineOptions, Finish, Request};

/// Random numbers below a bound.
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, bound: u32) -> u32 {
        (self.0.next_u64() % u64::from(bound)) as u32
    }

    pub(super) fn one_in(&mut self, bound: u32) -> bool {
        self.below(bound) == 0
    }
}

fn limits(random: &mut Random) -> Limits {
    let lanes = 1 + random.below(5);
    let buckets = [(16, 100), (32, 170), (64, 300)];
    let buckets = buckets.map(|(length, slab_bytes)| Bucket { length, slab_bytes, intact: 24.min(length) });
    let slab_bytes = 300 + u64::from(random.below(900));
    let (rows, deterministic) = (lanes + random.below(20), random.one_in(3));
    Limits { lanes, rows, buckets: buckets.into(), slab_bytes, vocab: 1 << 20, deterministic }
}

fn request(random: &mut Random, limits: &Limits, number: u32) -> Request {
    let bucket = limits.buckets[random.below(3) as usize];
    let fits = (limits.slab_bytes / bucket.slab_bytes) as u32;
    let length = 1 + random.below(bucket.length);
    // The first token is the request's own.
    let prompt = (0..length).map(|at| if at == 0 { 1000 + number } else { random.below(SMALL) }).collect();
    let mut request = Request::new(prompt, 1 + random.below(24));
    request.context = Some(bucket.length);
    request.n = 1 + random.below(3.min(limits.lanes).min(fits));
    request.sampling.seed = random.below(5).into();
    request.sampling.repetition_penalty = if random.one_in(2) { 1.0 } else { 1.5 };
    request.top_logprobs = random.below(3);
    if random.one_in(2) {
        request.stop_tokens = vec![random.below(SMALL), random.below(SMALL)];
    }
    request
}

/// Whether an answer is what the request gets when it runs alone, as far as it went.
fn check(request: &Request, choice: u32, answer_: &Answer) {
    let length = request.context.unwrap() as usize;
    let room = length - request.prompt.len() + 1;
    let most = room.min(request.max_tokens as usize);
    let mut expected = answer(request, choice, most);
    let stop = expected.iter().position(|token| request.stop_tokens.contains(token));
    let finish = match stop {
        Some(at) => Finish::StopToken(expected[at]),
        None if request.max_tokens as usize <= room => Finish::Limit,
        None => Finish::ContextFull,
    };
    expected.truncate(stop.unwrap_or(most));
    match answer_.finish {
        Some(Finish::Cancelled) => assert!(expected.starts_with(&answer_.tokens)),
        found => {
            assert_eq!((&answer_.tokens, found), (&expected, Some(finish)), "{request:?}");
        }
    }
}

#[test]
fn random_schedules_keep_the_order_and_the_budgets() {
    let (mut ended, mut cancelled) = (0, 0);
    for seed in 0..3000 {
        let random = &mut Random::new(seed);
        let limits = limits(random);
        let chunk = 1 + random.below(12);
        let options = EngineOptions { chunk, keep_bytes: 0, ..EngineOptions::default() };
        let most = chunk.min(limits.rows - limits.lanes + 1);
        let runner = Fake::new(limits.clone(), most);
        let log = runner.log.clone();
        let mut scheduler = Scheduler::new(runner, None, &options);
        let mut requests: BTreeMap<u32, (Request, Heard, Option<Ticket>)> = BTreeMap::new();
        let count = 1 + random.below(12);
        let mut tokens = 0;
        let mut steps = 0;
        while requests.len() < count as usize || !scheduler.is_idle() {
            if requests.len() < count as usize && random.one_in(3) {
                let number = requests.len() as u32;
                let request = request(random, &limits, number);
                request.check(&limits, false).unwrap();
                tokens += u64::from(request.n * request.max_tokens) + request.prompt.len() as u64;
                let heard = Heard::new(request.n);
                let (job, ticket) = Job::new(request.clone(), heard.sink());
                scheduler.submit(job);
                requests.insert(number, (request, heard, Some(ticket)));
            }
            if random.one_in(12) && !requests.is_empty() {
                let which = random.below(requests.len() as u32);
                requests.get_mut(&which).unwrap().2 = None;
            }
            let before: Vec<usize> = requests.values().map(|(_, heard, _)| running(heard)).collect();
            scheduler.step().unwrap();
            steps += 1;
            // Everybody who had begun before the step got on by one token, or ended.
            for ((_, heard, _), before) in requests.values().zip(before) {
                assert!(before == 0 || running(heard) > before || heard.is_over(), "an answer was held up");
            }
            let log = log.lock().unwrap();
            let stats = scheduler.stats();
            assert!(log.taken <= limits.slab_bytes && log.taken == stats.slab_bytes);
            assert!(steps <= 40 * u64::from(count) + 2 * tokens, "nothing gets on: {stats:?}");
        }
        assert_eq!(scheduler.left_queue(), requests.len());
        let log = log.lock().unwrap();
        assert_eq!(log.taken, 0, "a slab was not given back");
        // Without the repetitions of a prompt of one token, of which every answer reads its own.
        let mut begun = log.begun.clone();
        begun.dedup();
        assert!(begun.is_sorted(), "out of order: {begun:?}");
        for (request, heard, ticket) in requests.values() {
            assert!(heard.is_over());
            for (choice, answer) in (0..).zip(heard.answers()) {
                check(request, choice, &answer);
                let was = answer.finish == Some(Finish::Cancelled);
                assert!(!was || ticket.is_none());
                cancelled += usize::from(was);
                ended += usize::from(!was);
            }
        }
    }
    assert!(ended > 10_000 && cancelled > 1000, "{ended} {cancelled}");
}

/// Tokens of a request with one answer, once it has any.
fn running(heard: &Heard) -> usize {
    let answers = heard.answers();
    if answers.len() == 1 { answers[0].tokens.len() } else { 0 }
}

/// A scheduler with plenty of everything.
fn plenty(
    options: &EngineOptions,
) -> (Scheduler<'static, Fake>, std::sync::Arc<std::sync::Mutex<super::fake::Log>>) {
    let buckets = [(64, 10), (128, 20)];
    let buckets = buckets.map(|(length, slab_bytes)| Bucket { length, slab_bytes, intact: 64 }).to_vec();
    let limits =
        Limits { lanes: 4, rows: 68, buckets, slab_bytes: 100, vocab: 1 << 20, deterministic: false };
    let runner = Fake::new(limits, options.chunk);
    let log = runner.log.clone();
    (Scheduler::new(runner, None, options), log)
}

fn submit(scheduler: &mut Scheduler<'_, Fake>, request: &Request) -> (Heard, Ticket) {
    let heard = Heard::new(request.n);
    let (job, ticket) = Job::new(request.clone(), heard.sink());
    scheduler.submit(job);
    (heard, ticket)
}

fn run(scheduler: &mut Scheduler<'_, Fake>) {
    for _ in 0..1000 {
        scheduler.step().unwrap();
    }
    assert!(scheduler.is_idle());
}

#[test]
fn a_turn_goes_on_from_the_slab_of_the_one_before() {
    let (mut scheduler, log) = plenty(&EngineOptions { chunk: 32, ..EngineOptions::default() });
    let mut prompt: Vec<u32> = (100..140).collect();
    let mut cached = 0;
    for turn in 0..3 {
        let mut request = Request::new(prompt.clone(), 5);
        (request.keep, request.context, request.sampling.repetition_penalty) = (true, Some(128), 1.2);
        // One of the turns ends with a stop token, which is in the slab then.
        if turn == 1 {
            request.stop_tokens = vec![answer(&request, 0, 4)[3]];
        }
        let before = log.lock().unwrap().prefilled;
        let (heard, _ticket) = submit(&mut scheduler, &request);
        run(&mut scheduler);
        let answer_ = heard.answers().remove(0);
        check(&request, 0, &answer_);
        assert_eq!(answer_.cached, cached);
        assert_eq!(log.lock().unwrap().prefilled - before, u64::from(prompt.len() as u32 - cached));
        assert_eq!(scheduler.stats().kept_bytes, 20);
        prompt.extend(&answer_.tokens);
        prompt.extend(answer_.finish.and_then(|finish| match finish {
            Finish::StopToken(token) => Some(token),
            _ => None,
        }));
        // The newest token of an answer that its length ended was never computed.
        cached = prompt.len() as u32 - u32::from(answer_.finish == Some(Finish::Limit));
        prompt.extend([500 + turn, 600]);
    }
    // Of another context length, and of another beginning: neither is of use.
    for (context, first) in [(64, 100), (128, 99)] {
        let mut request = Request::new(prompt.clone(), 2);
        (request.context, request.prompt[0]) = (Some(context), first);
        let (heard, _ticket) = submit(&mut scheduler, &request);
        run(&mut scheduler);
        assert_eq!(heard.answers()[0].cached, 0);
    }
    // Three of 20 and one kept: the fifth slab takes the room of the one that is kept.
    let others: Vec<_> = (0..4)
        .map(|n| {
            let mut request = Request::new(vec![n, 1, 2], 9);
            request.context = Some(128);
            (submit(&mut scheduler, &request), request)
        })
        .collect();
    let mut request = Request::new(vec![9, 9], 3);
    request.context = Some(128);
    let last = submit(&mut scheduler, &request);
    run(&mut scheduler);
    for ((heard, _), request) in
        others.iter().map(|(heard, request)| (heard, request)).chain([(&last, &request)])
    {
        check(request, 0, &heard.answers()[0]);
    }
}

#[test]
fn a_common_beginning_is_read_once_while_nothing_is_overwritten() {
    let options = EngineOptions { chunk: 32, ..EngineOptions::default() };
    let (mut scheduler, log) = plenty(&options);
    let mut ask = |prompt: Vec<u32>, max_tokens: u32| {
        let mut request = Request::new(prompt, max_tokens);
        (request.keep, request.context, request.sampling.repetition_penalty) = (true, Some(128), 1.2);
        let (heard, _ticket) = submit(&mut scheduler, &request);
        run(&mut scheduler);
        check(&request, 0, &heard.answers()[0]);
        assert_eq!(scheduler.stats().kept_bytes, log.lock().unwrap().taken);
        (heard.answers()[0].cached, scheduler.stats().kept)
    };
    let system: Vec<u32> = (100..140).collect();
    let with = |user: &[u32]| [&system[..], user].concat();
    assert_eq!(ask(with(&[1, 2, 3]), 4), (0, 1));
    // Another question, the same one again, and one that is longer than half of what there is.
    assert_eq!(ask(with(&[4, 5]), 4), (40, 2));
    assert_eq!(ask(with(&[1, 2, 3]), 5), (42, 3));
    assert_eq!(ask(with(&[6; 41]), 4), (0, 4));
    // That one has more tokens than the shortest ring: it serves what begins with all of it, and nothing else. The pool is full
    // by now, and the oldest makes room.
    assert_eq!(ask(with(&[[6; 41].as_slice(), &[7]].concat()), 4), (0, 5));
    assert_eq!(ask([&system[..39], &[9]].concat(), 4), (39, 5));
}

#[test]
fn a_request_that_is_cancelled_leaves_what_it_has() {
    let (mut scheduler, _log) = plenty(&EngineOptions { chunk: 16, ..EngineOptions::default() });
    let mut request = Request::new((100..150).collect(), 50);
    (request.keep, request.context) = (true, Some(128));
    // In the middle of the prompt, and of the answer.
    for (steps, cached) in [(2, 0), (9, 32)] {
        let (heard, ticket) = submit(&mut scheduler, &request);
        for _ in 0..steps {
            scheduler.step().unwrap();
        }
        drop(ticket);
        run(&mut scheduler);
        let answer = heard.answers().remove(0);
        assert_eq!((answer.finish, answer.cached), (Some(Finish::Cancelled), cached));
        check(&request, 0, &answer);
        request.prompt.extend(&answer.tokens);
    }
    assert!(request.prompt.len() > 52);
    let (heard, _ticket) = submit(&mut scheduler, &request);
    run(&mut scheduler);
    assert_eq!(heard.answers()[0].cached as usize, request.prompt.len() - 1);
    check(&request, 0, &heard.answers()[0]);
}

/// A turn behind one that has ended, in the same bucket, or another question behind its beginning.
fn next_turn(random: &mut Random, limits: &Limits, before: &Request, answer: &Answer) -> Option<Request> {
    let length = before.context.unwrap() as usize;
    let mut request = before.clone();
    request.n = 1;
    if random.one_in(3) {
        request.prompt.truncate(1 + random.below(before.prompt.len() as u32) as usize);
    } else {
        request.prompt.extend(&answer.tokens);
        if let Some(Finish::StopToken(token)) = answer.finish {
            request.prompt.push(token);
        }
    }
    request.prompt.extend((0..=random.below(4)).map(|_| random.below(SMALL)));
    let fits = request.prompt.len() <= length && request.check(limits, false).is_ok();
    fits.then_some(request)
}

#[test]
fn conversations_get_what_they_get_alone() {
    let (mut hits, mut together) = (0, 0);
    for seed in 0..2000 {
        let random = &mut Random::new(seed);
        let limits = limits(random);
        let chunk = 1 + random.below(12);
        let keep_bytes = [0, 500, u64::MAX, u64::MAX][random.below(4) as usize];
        let most = chunk.min(limits.rows - limits.lanes + 1);
        let runner = Fake::new(limits.clone(), most);
        let log = runner.log.clone();
        let options = EngineOptions { chunk, keep_bytes, ..EngineOptions::default() };
        let mut scheduler = Scheduler::new(runner, None, &options);
        let mut turns: Vec<(Request, Heard, Option<Ticket>)> = Vec::new();
        let count = 4 + random.below(12) as usize;
        while turns.len() < count || !scheduler.is_idle() {
            if turns.len() < count && random.one_in(4) {
                let ended: Vec<_> = turns.iter().filter(|(_, heard, _)| heard.is_over()).collect();
                let next = (!ended.is_empty() && !random.one_in(4)).then(|| {
                    let (before, heard, _) = ended[random.below(ended.len() as u32) as usize];
                    next_turn(random, &limits, before, &heard.answers()[0])
                });
                let next = next.flatten();
                let mut request = next.unwrap_or_else(|| request(random, &limits, turns.len() as u32));
                request.keep = !random.one_in(8);
                let (heard, ticket) = submit(&mut scheduler, &request);
                turns.push((request, heard, Some(ticket)));
            }
            if random.one_in(24) && !turns.is_empty() {
                let which = random.below(turns.len() as u32) as usize;
                turns[which].2 = None;
            }
            scheduler.step().unwrap();
            let (log, stats) = (log.lock().unwrap(), scheduler.stats());
            assert!(log.taken <= limits.slab_bytes && log.taken == stats.slab_bytes + stats.kept_bytes);
            assert!(stats.kept_bytes <= keep_bytes);
            together = together.max(stats.kept);
        }
        for (request, heard, _) in &turns {
            assert!(heard.is_over());
            for (choice, answer) in (0..).zip(heard.answers()) {
                check(request, choice, &answer);
            }
            let cached = heard.answers()[0].cached;
            assert!((cached as usize) < request.prompt.len());
            assert!(!limits.deterministic || cached.is_multiple_of(most));
            hits += usize::from(cached > 0);
        }
        drop(scheduler);
        assert_eq!(log.lock().unwrap().taken, 0, "a slab was not given back");
    }
    assert!(hits > 1000 && together > 3, "{hits} {together}");
}

#[test]
fn what_is_kept_is_bounded_in_bytes_and_time() {
    let (mut scheduler, log) =
        plenty(&EngineOptions { chunk: 32, keep_bytes: 30, ..EngineOptions::default() });
    for n in 0..6 {
        let mut request = Request::new(vec![n, n + 1], 3);
        (request.keep, request.context) = (true, Some(if n % 2 == 0 { 64 } else { 128 }));
        let _kept = submit(&mut scheduler, &request);
        run(&mut scheduler);
        let kept = scheduler.stats().kept_bytes;
        assert!(kept <= 30 && kept == log.lock().unwrap().taken, "{kept}");
        assert!(scheduler.keeps());
    }
    let (mut scheduler, log) =
        plenty(&EngineOptions { keep_for: Duration::ZERO, ..EngineOptions::default() });
    let mut request = Request::new(vec![1, 2], 3);
    request.keep = true;
    let _kept = submit(&mut scheduler, &request);
    run(&mut scheduler);
    scheduler.expire();
    assert!(!scheduler.keeps() && log.lock().unwrap().taken == 0);
}

#[test]
fn one_request_fails_alone_and_a_device_takes_all() {
    let (mut scheduler, log) = plenty(&EngineOptions::default());
    let good = Request::new(vec![1, 2, 3], 9);
    let mut bad = Request::new(vec![1, POISON, 3], 9);
    bad.n = 2;
    let (good_heard, _a) = submit(&mut scheduler, &good);
    let (bad_heard, _b) = submit(&mut scheduler, &bad);
    run(&mut scheduler);
    check_plain(&good, &good_heard);
    assert!(matches!(bad_heard.with(|heard| heard.1.clone()), Some(EngineError::NotFinite { at: 0, .. })));
    assert_eq!(log.lock().unwrap().taken, 0);
    let (heard, _c) = submit(&mut scheduler, &good);
    scheduler.step().unwrap();
    let (fatal, _d) = submit(&mut scheduler, &Request::new(vec![FATAL], 1));
    let error = (0..9).find_map(|_| scheduler.step().err()).unwrap();
    scheduler.fail(&error);
    for heard in [heard, fatal] {
        let error = heard.with(|heard| heard.1.clone()).unwrap().to_string();
        assert!(error.contains("the device is gone"), "{error}");
    }
}

fn check_plain(request: &Request, heard: &Heard) {
    let answers = heard.answers();
    assert_eq!(answers[0].tokens, answer(request, 0, request.max_tokens as usize));
    assert_eq!(answers[0].finish, Some(Finish::Limit));
}

#[test]
fn nothing_is_a_whole_answer_too() {
    let (mut scheduler, _log) = plenty(&EngineOptions::default());
    let mut request = Request::new(vec![1], 0);
    request.n = 2;
    let (heard, _ticket) = submit(&mut scheduler, &request);
    assert!(scheduler.is_idle() && heard.is_over());
    assert!(
        heard.answers().iter().all(|answer| answer.tokens.is_empty() && answer.finish == Some(Finish::Limit))
    );
}
