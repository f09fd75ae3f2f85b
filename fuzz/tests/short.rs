//! Every target for about a second, on the inputs with the first numbers.

use std::time::{Duration, Instant};

use moac_fuzz::{Mutator, TARGETS};

#[test]
fn every_target_bears_its_first_inputs() {
    for target in TARGETS {
        let seeds = target.seeds();
        assert!(!seeds.is_empty(), "{} has no seeds", target.name);
        let all = seeds.len() as u64;
        let mutator = Mutator::new(seeds, target.words);
        let start = Instant::now();
        let (mut count, mut accepted) = (0, false);
        while count < all || start.elapsed() < Duration::from_secs(1) {
            let input = mutator.input(count);
            let began = Instant::now();
            accepted |= (target.run)(&input) && count < all;
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{}: input {count} takes {:?}",
                target.name,
                began.elapsed()
            );
            count += 1;
        }
        assert!(accepted, "{} accepts none of its seeds", target.name);
    }
}

#[test]
fn a_number_is_always_the_same_input() {
    let seeds = || vec![b"{\"a\": 12}".to_vec(), b"words".to_vec()];
    let (one, two) = (Mutator::new(seeds(), &["null"]), Mutator::new(seeds(), &["null"]));
    assert_eq!(one.input(0), b"{\"a\": 12}");
    let inputs: Vec<Vec<u8>> = (0..200).map(|number| one.input(number)).collect();
    assert_eq!(inputs, (0..200).map(|number| two.input(number)).collect::<Vec<_>>());
    let distinct: std::collections::BTreeSet<&Vec<u8>> = inputs.iter().collect();
    assert!(distinct.len() > 150, "{}", distinct.len());
}
