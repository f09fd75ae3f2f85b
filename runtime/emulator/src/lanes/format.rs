//! Binary floating-point formats of at most 32 bits: exact decoding to f64, and encoding in every rounding mode.

/// How a result is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// To nearest, ties to even.
    Rn,
    /// To nearest, ties away from zero.
    Rna,
    /// Toward zero.
    Rz,
    /// Toward minus infinity.
    Rm,
    /// Toward plus infinity.
    Rp,
}

impl Round {
    pub(crate) fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "rn" | "rni" => Self::Rn,
            "rna" => Self::Rna,
            "rz" | "rzi" => Self::Rz,
            "rm" | "rmi" => Self::Rm,
            "rp" | "rpi" => Self::Rp,
            _ => return None,
        })
    }

    /// Rounds to an integer.
    pub(crate) fn integer(self, x: f64) -> f64 {
        match self {
            Self::Rn => x.round_ties_even(),
            Self::Rna => x.round(),
            Self::Rz => x.trunc(),
            Self::Rm => x.floor(),
            Self::Rp => x.ceil(),
        }
    }
}

/// A format with a sign, `exponent` bits and `mantissa` explicit bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) bits: u32,
    pub(crate) exponent: u32,
    pub(crate) mantissa: u32,
    /// Whether the largest exponent holds infinity and NaN; otherwise only the all-ones pattern is NaN and there is no infinity.
    pub(crate) ieee: bool,
}

pub(crate) const F32: Format = Format { bits: 32, exponent: 8, mantissa: 23, ieee: true };
pub(crate) const F16: Format = Format { bits: 16, exponent: 5, mantissa: 10, ieee: true };
pub(crate) const BF16: Format = Format { bits: 16, exponent: 8, mantissa: 7, ieee: true };
pub(crate) const TF32: Format = Format { bits: 32, exponent: 8, mantissa: 10, ieee: true };
pub(crate) const E4M3: Format = Format { bits: 8, exponent: 4, mantissa: 3, ieee: false };
pub(crate) const E5M2: Format = Format { bits: 8, exponent: 5, mantissa: 2, ieee: true };

impl Format {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn sign_bit(self) -> u64 {
        1 << (self.exponent + self.mantissa)
    }

    /// Bit pattern of the largest finite magnitude.
    fn max_finite(self) -> u64 {
        let ones = self.sign_bit() - 1;
        if self.ieee { ones - (1 << self.mantissa) } else { ones - 1 }
    }

    /// The NaN that the hardware makes: all ones below the sign.
    pub(crate) fn nan(self) -> u64 {
        self.sign_bit() - 1
    }

    /// The value, exactly.
    pub(crate) fn decode(self, bits: u64) -> f64 {
        let negative = bits & self.sign_bit() != 0;
        let e = (bits >> self.mantissa) as i32 & ((1 << self.exponent) - 1);
        let m = bits & ((1 << self.mantissa) - 1);
        let top = (1 << self.exponent) - 1;
        let v = if self.ieee && e == top {
            if m == 0 { f64::INFINITY } else { return f64::NAN }
        } else if !self.ieee && bits & (self.sign_bit() - 1) == self.nan() {
            return f64::NAN;
        } else if e == 0 {
            m as f64 * pow2(1 - self.bias() - self.mantissa as i32)
        } else {
            (m | 1 << self.mantissa) as f64 * pow2(e - self.bias() - self.mantissa as i32)
        };
        if negative { -v } else { v }
    }

    /// Rounds `x` into the format. `saturate` makes overflow and infinity the largest finite value.
    pub(crate) fn encode(self, x: f64, round: Round, saturate: bool) -> u64 {
        if x.is_nan() {
            return self.nan();
        }
        let sign = if x.is_sign_negative() { self.sign_bit() } else { 0 };
        if x == 0.0 {
            return sign;
        }
        let clip = |to_infinity: bool| {
            let inf = if self.ieee { self.max_finite() + 1 } else { self.nan() };
            sign | if saturate || !to_infinity { self.max_finite() } else { inf }
        };
        if x.is_infinite() {
            return clip(true);
        }
        let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(1 - self.bias());
        let quantum = exponent - self.mantissa as i32;
        // Exact: both factors keep every bit of x, as every format here is far narrower than f64.
        let scaled = x * pow2(-quantum / 2) * pow2(-quantum + quantum / 2);
        let n = round.integer(scaled).abs() as u64;
        // A mantissa that rounds up to the next power of two carries into the exponent by itself.
        let biased = (exponent + self.bias() - 1) as u64;
        let magnitude = (biased << self.mantissa) + n;
        if magnitude > self.max_finite() {
            let away = match round {
                Round::Rn | Round::Rna => true,
                Round::Rz => false,
                Round::Rm => sign != 0,
                Round::Rp => sign == 0,
            };
            return clip(away);
        }
        sign | magnitude
    }
}

/// 2 to the power `e`, `e` in -1074..=1023.
fn pow2(e: i32) -> f64 {
    if e >= -1022 {
        f64::from_bits(((e + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (e + 1074).max(0))
    }
}

/// The f64 next to the exact `sum + error` whose last bit tells that it is inexact ("round to odd"), so that rounding it again into a
/// narrower format gives what rounding the exact value would. `sum` is the nearest f64 and `error` the exact rest.
pub(crate) fn odd(sum: f64, error: f64) -> f64 {
    if error == 0.0 || !sum.is_finite() || sum == 0.0 {
        return sum;
    }
    let toward_zero = if (error > 0.0) == (sum > 0.0) { sum.to_bits() } else { sum.to_bits() - 1 };
    f64::from_bits(toward_zero | 1)
}

/// `a + b`, rounded to odd.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let s = a + b;
    let bb = s - a;
    odd(s, (a - (s - bb)) + (b - bb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_round_as_defined() {
        // From the definitions: f16 has 11 significant bits, largest 65504, smallest 2^-24.
        assert_eq!(F16.encode(1.0, Round::Rn, false), 0x3c00);
        assert_eq!(F16.encode(65519.0, Round::Rn, false), 0x7bff);
        assert_eq!(F16.encode(65520.0, Round::Rn, false), 0x7c00);
        assert_eq!(F16.encode(65520.0, Round::Rz, false), 0x7bff);
        assert_eq!(F16.encode(-65520.0, Round::Rp, false), 0xfbff);
        assert_eq!(F16.encode(2f64.powi(-25), Round::Rn, false), 0);
        assert_eq!(F16.encode(2f64.powi(-25) * 1.001, Round::Rn, false), 1);
        assert_eq!(F16.encode(-2f64.powi(-30), Round::Rm, false), 0x8001);
        assert_eq!(F16.encode(f64::NAN, Round::Rn, false), 0x7fff);
        assert_eq!(BF16.encode(1.0 + 2f64.powi(-8), Round::Rn, false), 0x3f80); // tie to even
        assert_eq!(BF16.encode(1.0 + 3.0 * 2f64.powi(-8), Round::Rn, false), 0x3f82);
        assert_eq!(E4M3.encode(448.0, Round::Rn, true), 0x7e);
        assert_eq!(E4M3.encode(1e9, Round::Rn, true), 0x7e);
        assert_eq!(E4M3.encode(f64::NAN, Round::Rn, true), 0x7f);
        assert_eq!(E4M3.encode(2f64.powi(-9), Round::Rn, true), 1);
        assert_eq!(E5M2.encode(57344.0, Round::Rn, true), 0x7b);
        assert_eq!(E5M2.encode(f64::INFINITY, Round::Rn, true), 0x7b);
    }

    #[test]
    fn every_small_pattern_survives_a_round_trip() {
        for f in [F16, BF16, E4M3, E5M2] {
            for bits in 0..1u64 << f.bits {
                let v = f.decode(bits);
                if !v.is_nan() {
                    assert_eq!(f.encode(v, Round::Rn, false), bits, "{f:?} {bits:#x}");
                    assert_eq!(f.encode(v, Round::Rm, false), bits);
                }
            }
        }
    }

    #[test]
    fn f32_agrees_with_the_processor() {
        let mut x = 1u64;
        for _ in 0..100_000 {
            x = x.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            let v = f64::from_bits((x & !(0x7ff << 52)) | ((850 + (x >> 20) % 330) << 52));
            assert_eq!(F32.encode(v, Round::Rn, false), u64::from((v as f32).to_bits()), "{v:e}");
            let bits = u64::from((v as f32).to_bits());
            assert_eq!(F32.decode(bits).to_bits(), f64::from(v as f32).to_bits());
        }
    }
}
