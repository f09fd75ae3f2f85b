//! The number of items of each task.

use std::fmt;
use std::str::FromStr;

use crate::items::Task;

/// The shares of the tasks, in the order of [`Task::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix([f64; Task::ALL.len()]);

impl Default for Mix {
    /// Every task alike but the kinds of facts, which are to be asked for.
    fn default() -> Self {
        Self(Task::ALL.map(|task| if matches!(task, Task::Fact(_)) { 0.0 } else { 1.0 }))
    }
}

/// Stands for all kinds of facts, which have equal parts of its share.
const FACTS: &str = "facts";

/// An invalid mix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "found `{0}`, expected tasks with shares of at least 0, not all of them 0, as in text=1,passkey=1,facts=10"
)]
pub struct NotAMix(String);

impl FromStr for Mix {
    type Err = NotAMix;

    fn from_str(text: &str) -> Result<Self, NotAMix> {
        let wrong = || NotAMix(text.to_owned());
        let mut shares = [None; Task::ALL.len()];
        for part in text.split(',') {
            let (name, share) = part.split_once('=').ok_or_else(wrong)?;
            let named = |task: &Task| match task {
                Task::Fact(_) if name.trim() == FACTS => true,
                task => task.name() == name.trim(),
            };
            let named: Vec<usize> = (0..Task::ALL.len()).filter(|&at| named(&Task::ALL[at])).collect();
            let share: f64 = share.trim().parse().map_err(|_| wrong())?;
            if named.is_empty() || !(0.0..=1e6).contains(&share) {
                return Err(wrong());
            }
            for &at in &named {
                if shares[at].replace(share / named.len() as f64).is_some() {
                    return Err(wrong());
                }
            }
        }
        let shares = shares.map(Option::unwrap_or_default);
        if shares.iter().sum::<f64>() > 0.0 { Ok(Self(shares)) } else { Err(wrong()) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Task::ALL.into_iter().zip(self.0).filter(|(_, share)| *share > 0.0);
        for (at, (task, share)) in named.enumerate() {
            write!(f, "{}{task}={share}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Mix {
    /// Items of one task.
    pub fn only(task: Task) -> Self {
        Self(Task::ALL.map(|other| f64::from(u8::from(other == task))))
    }

    /// So many items divided by the shares: what is left after rounding down goes to the largest remainders.
    pub fn counts(&self, items: usize) -> [(Task, usize); Task::ALL.len()] {
        let sum: f64 = self.0.iter().sum();
        let exact = self.0.map(|share| share / sum * items as f64);
        let mut counts = exact.map(|exact| exact.floor() as usize);
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()).then(a.cmp(&b)));
        let left = items.saturating_sub(counts.iter().sum());
        for &at in order.iter().take(left) {
            counts[at] += 1;
        }
        std::array::from_fn(|at| (Task::ALL[at], counts[at]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_divided_by_shares() {
        let all = |mix: Mix, items| mix.counts(items).map(|(_, count)| count);
        let counts = |text: &str, items| all(text.parse::<Mix>().unwrap(), items);
        assert_eq!(all(Mix::default(), 20)[..5], [5, 5, 5, 5, 0]);
        assert_eq!(counts("document=1,passkey=1,kv=2", 20)[..5], [5, 5, 10, 0, 0]);
        assert_eq!(counts("kv=0.1", 3)[..4], [0, 0, 3, 0]);
        assert_eq!(counts("passkey=2, document=1", 2)[..4], [1, 1, 0, 0]);
        assert_eq!(counts("text=1,facts=1", 20), [0, 0, 0, 10, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        assert_eq!(counts("name=1,code=3", 4)[4..], [0, 0, 0, 1, 0, 0, 3, 0, 0, 0]);
        for items in 0..40 {
            assert_eq!(counts("document=0.3,passkey=0.5,kv=1.7", items).iter().sum::<usize>(), items);
        }
    }

    #[test]
    fn what_is_no_mix_is_refused() {
        for text in [
            "",
            "document",
            "document=x",
            "needle=1",
            "kv=-1",
            "kv=0",
            "kv=1,kv=1",
            "kv=inf",
            "facts=1,word=1",
        ] {
            assert_eq!(text.parse::<Mix>(), Err(NotAMix(text.to_owned())));
        }
        let mix: Mix = "kv=2.5,document=1".parse().unwrap();
        assert_eq!(mix.to_string().parse(), Ok(mix));
    }
}
