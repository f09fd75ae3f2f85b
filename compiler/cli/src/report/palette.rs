//! The colours of a span map: from pale, a short span, to dark, the whole context. Lightness falls all the way, so
//! the map is readable without colour.

/// Steps of the scale, both ends included.
pub(super) const STEPS: usize = 33;

/// sRGB at even distances along the scale.
const ANCHORS: [[u8; 3]; 5] =
    [[243, 240, 220], [186, 219, 186], [98, 178, 176], [41, 116, 160], [19, 44, 92]];

/// The step of a share of the context.
pub(super) fn step(share: f64) -> usize {
    (share.clamp(0.0, 1.0) * (STEPS - 1) as f64).round() as usize
}

/// The colour of a step, as CSS writes it.
pub(super) fn colour(step: usize) -> String {
    let at = step as f64 / (STEPS - 1) as f64 * (ANCHORS.len() - 1) as f64;
    let low = (at.floor() as usize).min(ANCHORS.len() - 2);
    let part = at - low as f64;
    let channel = |index: usize| {
        let (from, to) = (f64::from(ANCHORS[low][index]), f64::from(ANCHORS[low + 1][index]));
        (from + (to - from) * part).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(0), channel(1), channel(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_darkens_from_end_to_end() {
        let brightness = |step| {
            let text = colour(step);
            let channel = |at| f64::from(u8::from_str_radix(&text[at..at + 2], 16).unwrap());
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        assert!((1..STEPS).all(|step| brightness(step) < brightness(step - 1)));
        assert_eq!((step(0.0), step(0.5), step(1.0), step(7.0)), (0, 16, 32, 32));
        assert_eq!((colour(0), colour(32)), ("#f3f0dc".to_owned(), "#132c5c".to_owned()));
    }
}
