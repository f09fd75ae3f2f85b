//! Inputs from seeds, by small random changes. The same seeds and number give the same input.

/// Makes inputs.
#[derive(Debug)]
pub struct Mutator {
    seeds: Vec<Vec<u8>>,
    /// Words of the format, which random bytes would never spell.
    words: &'static [&'static str],
    /// The longest input.
    most: usize,
}

/// Numbers that lie at the edges of types and checks.
const NUMBERS: [&str; 22] = [
    "0",
    "1",
    "-1",
    "2",
    "7",
    "64",
    "127",
    "128",
    "255",
    "256",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e308",
    "-1e400",
    "0.1",
    "1e-320",
];
const BYTES: [u8; 10] = [0x00, 0x01, 0x7f, 0x80, 0xff, b' ', b'"', b'{', b'}', b'\n'];

/// A small generator of random numbers.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

impl Mutator {
    /// Changes `seeds`, of which there must be one; inputs are at most four times as long as the longest.
    pub fn new(seeds: Vec<Vec<u8>>, words: &'static [&'static str]) -> Self {
        let most = 4 * seeds.iter().map(Vec::len).max().unwrap_or(0).max(256);
        Self { seeds, words, most }
    }

    /// The input of a number; the first are the seeds as they are.
    pub fn input(&self, number: u64) -> Vec<u8> {
        if let Some(seed) = usize::try_from(number).ok().and_then(|at| self.seeds.get(at)) {
            return seed.clone();
        }
        let mut random = Random(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let mut input = random.of(&self.seeds).clone();
        // Most inputs change little, so that they get past the first checks; some change much.
        let changes = 1 + random.below(4) * random.below(4);
        for _ in 0..changes {
            self.change(&mut input, &mut random);
        }
        input.truncate(self.most);
        input
    }

    fn change(&self, input: &mut Vec<u8>, random: &mut Random) {
        if input.is_empty() {
            input.extend(random.of(&self.seeds).iter());
            return;
        }
        let at = random.below(input.len());
        let some = 1 + random.below(input.len() - at).min(random.below(64));
        match random.below(13) {
            0 => input[at] ^= 1 << random.below(8),
            1 => input[at] = *random.of(&BYTES),
            2 => input[at] = random.next() as u8,
            3 => drop(input.drain(at..at + some)),
            4 => {
                let part = input[at..at + some].to_vec();
                let to = random.below(input.len());
                input.splice(to..to, part);
            }
            5 => {
                // The same again and again.
                let part = input[at..at + some].to_vec();
                let bits = random.below(9);
                let times = 1 + random.below(1 << bits);
                let more: Vec<u8> = part.iter().copied().cycle().take(part.len() * times).collect();
                input.splice(at..at, more.into_iter().take(self.most));
            }
            6 => {
                // A part of another seed.
                let other = random.of(&self.seeds);
                if !other.is_empty() {
                    let from = random.below(other.len());
                    let length = 1 + random.below((other.len() - from).min(256));
                    input.splice(at..at + some, other[from..from + length].iter().copied());
                }
            }
            7 | 8 if !self.words.is_empty() => {
                let word = random.of(self.words).as_bytes();
                let over = if random.below(2) == 0 { word.len().min(input.len() - at) } else { 0 };
                input.splice(at..at + over, word.iter().copied());
            }
            9 | 10 => {
                // A number, where one stands.
                let Some(start) = input[at..].iter().position(u8::is_ascii_digit).map(|from| at + from)
                else {
                    return;
                };
                let digits = input[start..].iter().take_while(|b| b.is_ascii_digit() || **b == b'.').count();
                input.splice(start..start + digits, random.of(&NUMBERS).bytes());
            }
            11 => {
                // A binary number.
                let width = 1 << random.below(4);
                let value = match random.below(4) {
                    0 => 0,
                    1 => u64::MAX,
                    2 => 1 << random.below(64),
                    _ => random.next() >> random.below(64),
                };
                let end = (at + width).min(input.len());
                input.splice(at..end, value.to_le_bytes()[..end - at].iter().copied());
            }
            _ => input.truncate(at),
        }
    }
}
