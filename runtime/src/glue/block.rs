//! The tables of a step and the parameter block of each kernel of the engine.
//!
//! Each is one layout with its namesake in `templates/include/moac/glue/params.cuh`: the same fields in the same order
//! without gaps, the size asserted on both sides. Change both together and raise [`ABI_VERSION`].

use super::Op;
use crate::abi::Abi;

/// Raised whenever the meaning or the layout of a table or a block changes.
pub const ABI_VERSION: u32 = 1;

/// The most likely tokens that a sample reports at most.
pub const TOP_LOGPROBS: u32 = 20;

/// Declares a struct as a device has it: numbers one after the other, without gaps.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident: $bytes:literal { $($(#[$of_field:meta])* $field:ident: $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        pub struct $name {
            $($(#[$of_field])* pub $field: $kind,)+
        }

        impl $name {
            /// Bytes of it on a device.
            pub const BYTES: usize = $bytes;

            /// As a device has it.
            pub fn to_bytes(&self) -> [u8; $bytes] {
                let mut bytes = [0; $bytes];
                let mut at = 0;
                $(
                    let field = self.$field.to_le_bytes();
                    bytes[at..at + field.len()].copy_from_slice(&field);
                    at += field.len();
                )+
                debug_assert_eq!(at, $bytes);
                bytes
            }
        }

        const _: () = assert!(size_of::<$name>() == $bytes && 0 $(+ size_of::<$kind>())+ == $bytes);
    };
}

layout! {
    /// A row of a step's activations, in the order of the attention call: decodes first, then prefills.
    Row: 16 {
        /// The token; [`Row::NEWEST`] for the one that the lane's last sample chose.
        token: u32,
        /// Its position in the context.
        position: u32,
        /// The request's place among the running ones; [`Row::IDLE`] for an unused row.
        lane: u32,
        /// 0.
        reserved: u32,
    }
}

impl Row {
    /// The token is the lane's newest, which is on the device only.
    pub const NEWEST: u32 = u32::MAX;
    /// The row is padding.
    pub const IDLE: u32 = u32::MAX;
    /// A row of padding.
    pub const PADDING: Self = Self { token: 0, position: 0, lane: Self::IDLE, reserved: 0 };
}

layout! {
    /// How a token is chosen from a row of logits, in this order: repetition penalty, temperature, top-k, top-p (of what
    /// top-k kept), min-p. Tokens that are as likely as the last one kept are kept too, and logits that differ by less
    /// than 2^-16 after the temperature may count as equal there. Where the largest logit is not finite or one is not a
    /// number, the log-probability is NaN and the token means nothing.
    Sample: 48 {
        /// The row of the step whose last hidden state the logits come from.
        row: u32,
        /// The lane that takes the token; [`Row::IDLE`] for an unused sample.
        lane: u32,
        /// Keep this many of the likeliest tokens; 0 for all.
        top_k: u32,
        /// Divides the logits; 0 takes the likeliest token, of equally likely ones the first.
        temperature: f32,
        /// Keep the likeliest tokens that together have this probability; 1 for all.
        top_p: f32,
        /// Keep tokens at least this many times as likely as the likeliest; 0 for all.
        min_p: f32,
        /// Divides positive logits of tokens already in the lane, multiplies negative ones; 1 changes nothing.
        penalty: f32,
        /// The token's number in the answer, from 0.
        counter: u32,
        /// The request's seed.
        seed: u64,
        /// How many of the likeliest tokens are reported beside the chosen one, at most [`TOP_LOGPROBS`].
        top_logprobs: u32,
        /// 0.
        reserved: u32,
    }
}

impl Sample {
    /// An unused sample, for padding.
    pub const PADDING: Self = Self { lane: Row::IDLE, ..Self::greedy(0, 0) };

    /// The likeliest token after row `row`, for `lane`.
    pub const fn greedy(row: u32, lane: u32) -> Self {
        Self {
            row,
            lane,
            top_k: 0,
            temperature: 0.0,
            top_p: 1.0,
            min_p: 0.0,
            penalty: 1.0,
            counter: 0,
            seed: 0,
            top_logprobs: 0,
            reserved: 0,
        }
    }
}

layout! {
    /// The token that was chosen.
    Outcome: 8 {
        /// The token.
        token: u32,
        /// The natural logarithm of its probability before any of temperature, penalties and cuts.
        logprob: f32,
    }
}

layout! {
    /// The block of [`Op::Embed`]. Pointers are device addresses here and below.
    Embed: 48 {
        /// `[rows]` [`Row`].
        table: u64,
        /// `[vocab, hidden]`.
        embedding: u64,
        /// `[rows, hidden]`, written.
        x: u64,
        /// `[lanes]` u32: the token that each lane's last sample chose.
        newest: u64,
        /// `[lanes]` of [`seen_words`](super::Sizes::seen_words) u32: a bit for each token that was in the lane; 0 for none.
        seen: u64,
        /// Lanes. A row of another one has no lane.
        lanes: u32,
        /// Rows.
        rows: u32,
    }
}

layout! {
    /// The block of [`Op::Norm`].
    Norm: 40 {
        /// `[of_rows, hidden]`.
        x: u64,
        /// `[hidden]`.
        weight: u64,
        /// `[rows, hidden]`, written.
        y: u64,
        /// `[rows]` [`Sample`], which say the rows of `x`; 0 where row `i` of `y` is that of `x`.
        samples: u64,
        /// Rows of `x`. A sample of a row behind them takes the last one.
        of_rows: u32,
        /// Rows of `y`.
        rows: u32,
    }
}

layout! {
    /// The block of [`Op::Rotate`].
    Rotate: 48 {
        /// `[rows]` [`Row`].
        table: u64,
        /// `[rows, heads + 2 kv heads, head_dim]`, in place.
        qkv: u64,
        /// `[heads + 2 kv heads, head_dim]`; 0 for a model without.
        bias: u64,
        /// `[head_dim]`, of every head of q; 0 for a model without.
        q_norm: u64,
        /// `[head_dim]`, of every head of k; 0 for a model without.
        k_norm: u64,
        /// Rows.
        rows: u32,
        /// 0.
        reserved: u32,
    }
}

layout! {
    /// The block of [`Op::Activate`].
    Activate: 24 {
        /// `[rows, 2 intermediate]`: gate, then up.
        gate_up: u64,
        /// `[rows, intermediate]`, written.
        y: u64,
        /// Rows.
        rows: u32,
        /// 0.
        reserved: u32,
    }
}

layout! {
    /// The block of [`Op::LINEAR`].
    Linear: 40 {
        /// `[rows, depth]`.
        x: u64,
        /// `[out, depth]`.
        weights: u64,
        /// `[depth]`, the weights of the norm of `x`; 0 where there is none.
        norm: u64,
        /// `[rows, results]`, written or added to.
        y: u64,
        /// Rows, at most [`MAX_LINEAR_ROWS`](super::MAX_LINEAR_ROWS).
        rows: u32,
        /// 0.
        reserved: u32,
    }
}

layout! {
    /// The block of [`Op::Sample`].
    SampleParams: 72 {
        /// `[rows]` [`Sample`].
        samples: u64,
        /// `[rows, vocab]` f32.
        logits: u64,
        /// `[rows]` [`Outcome`], written.
        outcomes: u64,
        /// `[rows]` of [`TOP_LOGPROBS`] [`Outcome`], written as far as a sample asks for them, the likeliest first; 0 for none.
        top: u64,
        /// `[lanes]` u32, written.
        newest: u64,
        /// As [`Embed::seen`].
        seen: u64,
        /// `[rows]` u32, zero before the launch and left zero by it.
        counters: u64,
        /// [`scratch_bytes`](super::Sizes::scratch_bytes) of the CTAs' findings.
        scratch: u64,
        /// Lanes. A sample of another one is not taken.
        lanes: u32,
        /// Samples.
        rows: u32,
    }
}

/// The parameters of a launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Block {
    /// Of [`Op::Embed`].
    Embed(Embed),
    /// Of [`Op::Norm`].
    Norm(Norm),
    /// Of [`Op::Rotate`].
    Rotate(Rotate),
    /// Of [`Op::Activate`].
    Activate(Activate),
    /// Of [`Op::Sample`].
    Sample(SampleParams),
    /// Of one of [`Op::LINEAR`].
    Linear(Op, Linear),
}

impl Block {
    /// The operation that takes it.
    pub const fn op(&self) -> Op {
        match self {
            Self::Embed(_) => Op::Embed,
            Self::Norm(_) => Op::Norm,
            Self::Rotate(_) => Op::Rotate,
            Self::Activate(_) => Op::Activate,
            Self::Sample(_) => Op::Sample,
            Self::Linear(op, _) => *op,
        }
    }

    /// Rows of the launch: of the output, or samples.
    pub const fn rows(&self) -> u32 {
        match self {
            Self::Embed(Embed { rows, .. })
            | Self::Norm(Norm { rows, .. })
            | Self::Rotate(Rotate { rows, .. })
            | Self::Activate(Activate { rows, .. })
            | Self::Sample(SampleParams { rows, .. })
            | Self::Linear(_, Linear { rows, .. }) => *rows,
        }
    }

    /// The block as a kernel takes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::Embed(block) => block.to_bytes().to_vec(),
            Self::Norm(block) => block.to_bytes().to_vec(),
            Self::Rotate(block) => block.to_bytes().to_vec(),
            Self::Activate(block) => block.to_bytes().to_vec(),
            Self::Sample(block) => block.to_bytes().to_vec(),
            Self::Linear(_, block) => block.to_bytes().to_vec(),
        }
    }
}

impl Op {
    /// The parameter block that its kernels take.
    pub const fn abi(self) -> Abi {
        let params_bytes = match self {
            Self::Embed => Embed::BYTES,
            Self::Norm => Norm::BYTES,
            Self::Rotate => Rotate::BYTES,
            Self::Activate => Activate::BYTES,
            Self::Sample => SampleParams::BYTES,
            Self::Qkv | Self::Output | Self::GateUp | Self::Down | Self::Head => Linear::BYTES,
        };
        Abi { version: ABI_VERSION, params_bytes }
    }
}
