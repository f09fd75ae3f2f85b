//! SentencePiece's BPE: the vocabulary of Llama 2, Vicuna and the first Mistral.
//!
//! A space is written `▁`, and one is put before the text. Text starts as characters; of all neighbours that together
//! are a piece, those with the highest score are joined first, the leftmost of equals. A character that is not a piece
//! becomes the pieces of its bytes. What must hold: the time is `n log n` in the text, whatever the pieces are.

use std::collections::{BinaryHeap, HashMap};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

/// SentencePiece's mark for a space.
const SPACE: char = '\u{2581}';

/// A piece of the vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// The kinds of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    /// Has a meaning instead of a text.
    Control,
    /// Is taken whole wherever it stands in a text.
    Added,
    Unused,
    /// `<0x41>`
    Byte,
}

/// A SentencePiece vocabulary.
#[derive(Clone, Debug)]
pub(super) struct Pieces {
    all: Vec<Piece>,
    ids: HashMap<String, u32>,
    /// The piece of each byte.
    bytes: Vec<Option<u32>>,
    unknown: u32,
    /// Whether a space is put before the text.
    space: bool,
    /// Whether runs of spaces are one.
    squeeze: bool,
    /// Pieces that are taken whole wherever they stand in a text.
    added: Whole,
    /// These, and those that have a meaning where control pieces do.
    control: Whole,
}

/// Finds pieces in a text, the longest at each place.
#[derive(Clone, Debug)]
struct Whole {
    search: AhoCorasick,
    ids: Vec<u32>,
}

/// A part of a text.
enum Part<'t> {
    Text(&'t str),
    Piece(u32),
}

/// Two neighbours that may be joined.
#[derive(PartialEq)]
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Bytes of both, which tell whether one has been joined since.
    length: usize,
    id: u32,
}

impl Eq for Pair {}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// A symbol of a text that is being joined.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    length: usize,
    before: Option<usize>,
    after: Option<usize>,
}

impl Pieces {
    pub(super) fn new(
        pieces: Vec<Piece>,
        unknown: Option<u32>,
        space: bool,
        squeeze: bool,
    ) -> Result<Self, String> {
        let mut ids = HashMap::with_capacity(pieces.len());
        let mut bytes = vec![None; 256];
        let (mut added, mut control) = (Vec::new(), Vec::new());
        for (piece, id) in pieces.iter().zip(0..) {
            if ids.insert(piece.text.clone(), id).is_some() {
                return Err(format!("{:?} twice", piece.text));
            }
            match piece.kind {
                PieceKind::Byte => {
                    let byte = byte(&piece.text).ok_or_else(|| format!("the byte piece {:?}", piece.text))?;
                    bytes[usize::from(byte)] = Some(id);
                }
                PieceKind::Added => {
                    added.push(id);
                    control.push(id);
                }
                PieceKind::Control | PieceKind::Unknown => control.push(id),
                PieceKind::Normal | PieceKind::Unused => {}
            }
        }
        let (added, control) = (Whole::new(&pieces, added)?, Whole::new(&pieces, control)?);
        let unknown = unknown.filter(|&id| (id as usize) < pieces.len());
        let stated = || pieces.iter().position(|piece| piece.kind == PieceKind::Unknown).map(|id| id as u32);
        let unknown = unknown.or_else(stated).ok_or("no piece for what is unknown")?;
        Ok(Self { all: pieces, ids, bytes, unknown, space, squeeze, added, control })
    }

    pub(super) fn spelling(&self, id: u32) -> Option<&str> {
        self.all.get(id as usize).map(|piece| piece.text.as_str())
    }

    pub(super) fn id(&self, spelling: &str) -> Option<u32> {
        self.ids.get(spelling).copied()
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.all.len()
    }

    /// The tokens of a text; with `control`, the spelling of a control piece is that piece. Each stretch of text between
    /// those starts with a space of its own.
    pub(super) fn encode(&self, text: &str, control: bool) -> Vec<u32> {
        let mut tokens = Vec::new();
        let whole = if control { &self.control } else { &self.added };
        for part in whole.parts(text) {
            match part {
                Part::Piece(id) => tokens.push(id),
                Part::Text(text) => self.join(&self.normalized(text), &mut tokens),
            }
        }
        tokens
    }

    fn normalized(&self, text: &str) -> String {
        let text = if self.squeeze { text.trim_matches(' ') } else { text };
        let mut out = String::with_capacity(text.len() + 3);
        if self.space && !text.is_empty() {
            out.push(SPACE);
        }
        let mut before = ' ';
        for c in text.chars() {
            if c != ' ' {
                out.push(c);
            } else if !(self.squeeze && before == ' ') {
                out.push(SPACE);
            }
            before = c;
        }
        out
    }

    fn join(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (start, c) in text.char_indices() {
            let at = symbols.len();
            let (before, after) = (at.checked_sub(1), Some(at + 1));
            symbols.push(Symbol { start, length: c.len_utf8(), before, after });
        }
        let Some(last) = symbols.last_mut() else { return };
        last.after = None;
        let pair = |symbols: &[Symbol], left: usize, right: usize| {
            let (start, length) = (symbols[left].start, symbols[left].length + symbols[right].length);
            let id = *self.ids.get(&text[start..start + length])?;
            let piece = &self.all[id as usize];
            let joins = matches!(piece.kind, PieceKind::Normal | PieceKind::Added | PieceKind::Unused);
            joins.then_some(Pair { score: piece.score, left, right, length, id })
        };
        let mut heap: BinaryHeap<Pair> =
            (1..symbols.len()).filter_map(|right| pair(&symbols, right - 1, right)).collect();
        // Where unused pieces, which are joined for the sake of others, are taken apart again.
        let mut parted: HashMap<&str, usize> = HashMap::new();
        while let Some(best) = heap.pop() {
            let (left, right) = (symbols[best.left], symbols[best.right]);
            if left.length == 0 || right.length == 0 || left.length + right.length != best.length {
                continue;
            }
            if self.all[best.id as usize].kind == PieceKind::Unused {
                parted.insert(&text[left.start..left.start + best.length], left.length);
            }
            symbols[best.left].length = best.length;
            symbols[best.left].after = right.after;
            symbols[best.right].length = 0;
            if let Some(after) = right.after {
                symbols[after].before = Some(best.left);
                heap.extend(pair(&symbols, best.left, after));
            }
            if let Some(before) = left.before {
                heap.extend(pair(&symbols, before, best.left));
            }
        }
        let mut at = Some(0);
        while let Some(symbol) = at.map(|at| symbols[at]) {
            let mut rest = vec![&text[symbol.start..symbol.start + symbol.length]];
            while let Some(text) = rest.pop() {
                match parted.get(text) {
                    Some(&at) => rest.extend([&text[at..], &text[..at]]),
                    None => self.symbol(text, tokens),
                }
            }
            at = symbol.after;
        }
    }

    /// The tokens of a symbol: its piece, or those of its bytes.
    fn symbol(&self, text: &str, tokens: &mut Vec<u32>) {
        let piece = self.ids.get(text).filter(|&&id| {
            let kind = self.all[id as usize].kind;
            matches!(kind, PieceKind::Normal | PieceKind::Added)
        });
        if let Some(&id) = piece {
            tokens.push(id);
            return;
        }
        let bytes: Option<Vec<u32>> = text.bytes().map(|byte| self.bytes[usize::from(byte)]).collect();
        match bytes {
            Some(bytes) => tokens.extend(bytes),
            None => tokens.push(self.unknown),
        }
    }

    /// The text of tokens; bytes that form no character are shown as such, and the space that was put before the text
    /// is taken away.
    pub(super) fn decode(&self, tokens: &[u32]) -> String {
        let mut bytes = Vec::new();
        for piece in tokens.iter().filter_map(|&id| self.all.get(id as usize)) {
            match piece.kind {
                PieceKind::Byte => bytes.extend(byte(&piece.text)),
                PieceKind::Control | PieceKind::Unknown | PieceKind::Added => {
                    bytes.extend_from_slice(piece.text.as_bytes());
                }
                _ => bytes.extend_from_slice(piece.text.replace(SPACE, " ").as_bytes()),
            }
        }
        let text = shown(&bytes);
        match text.strip_prefix(' ') {
            Some(rest) if self.space => rest.to_owned(),
            _ => text,
        }
    }
}

impl Whole {
    fn new(pieces: &[Piece], ids: Vec<u32>) -> Result<Self, String> {
        let ids: Vec<u32> = ids.into_iter().filter(|&id| !pieces[id as usize].text.is_empty()).collect();
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            // The others take more memory.
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(ids.iter().map(|&id| &pieces[id as usize].text))
            .map_err(|error| error.to_string())?;
        Ok(Self { search, ids })
    }

    /// A text cut at the pieces that are taken whole.
    fn parts<'t>(&self, text: &'t str) -> Vec<Part<'t>> {
        let mut parts = Vec::new();
        let mut start = 0;
        for found in self.search.find_iter(text) {
            if start < found.start() {
                parts.push(Part::Text(&text[start..found.start()]));
            }
            parts.push(Part::Piece(self.ids[found.pattern().as_usize()]));
            start = found.end();
        }
        if start < text.len() {
            parts.push(Part::Text(&text[start..]));
        }
        parts
    }
}

/// The byte of a piece such as `<0x0A>`.
fn byte(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2)
}

/// Text of bytes; every byte that belongs to no character is shown as one.
fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}
