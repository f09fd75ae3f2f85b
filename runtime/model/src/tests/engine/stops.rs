//! Stop strings, whatever the pieces are that the text comes in.

use proptest::prelude::*;

use crate::engine::stops::StopScan;

/// The text up to the first stop that is complete; of several, up to the one that begins first.
fn expected(text: &str, stops: &[String]) -> (String, Option<usize>) {
    for end in 0..=text.len() {
        let ended = (0..stops.len()).filter(|&index| text[..end].ends_with(&stops[index]));
        if let Some(index) = ended.max_by_key(|&index| (stops[index].len(), std::cmp::Reverse(index))) {
            return (text[..end - stops[index].len()].to_owned(), Some(index));
        }
    }
    (text.to_owned(), None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn text_is_trimmed_and_held_back_no_longer_than_needed(
        text in "[abc]{0,24}", stops in prop::collection::vec("[abc]{1,4}", 0..4), cuts in prop::collection::vec(0_usize..24, 0..8)
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| cut < text.len()).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let mut scan = StopScan::new(stops.clone());
        let (mut said, mut stop) = (String::new(), None);
        for piece in cuts.windows(2) {
            let so_far = &text[..piece[1]];
            let (more, found) = scan.push(&text[piece[0]..piece[1]]);
            said += &more;
            if found.is_some() {
                stop = found;
                break;
            }
            // Whatever is held back begins a stop.
            let held = so_far.strip_prefix(said.as_str()).unwrap();
            prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)));
        }
        if stop.is_none() {
            said += &scan.finish();
        }
        prop_assert_eq!((said, stop), expected(&text, &stops));
    }
}

#[test]
fn characters_stay_whole() {
    let mut scan = StopScan::new(vec!["éx".into(), "→".into()]);
    assert_eq!(scan.push("aé"), ("a".into(), None));
    assert_eq!(scan.push("é"), ("é".into(), None));
    assert_eq!(scan.push("y→z"), ("éy".into(), Some(1)));
}
