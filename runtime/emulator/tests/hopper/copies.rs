//! Known answers of bulk and tensor copies, reductions, `mbarrier` phases, clusters and register counts, from `instructions.cu`.

use crate::support::{Numbers, from_bf16, words_of};
use moac_emulator::{Launch, Memory, Module, OobFill, Report, Swizzle, TensorMap, TensorType, launch};

pub(crate) const PTX: &str = include_str!("../ptx/instructions.ptx");
/// Schedules that every kernel must be clean under.
const SCHEDULES: u64 = 20;

fn clean(report: &Report, what: &str) {
    let all: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(report.clean(), "{what}: {}", all.join("\n"));
}

fn u32s(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn to_bytes(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn bulk_copies_move_their_bytes() {
    let module = Module::parse(PTX).unwrap();
    for bytes in [16u32, 80, 8192] {
        for seed in 0..SCHEDULES {
            let data: Vec<u32> = (0..bytes / 4).map(|i| i * i).collect();
            let mut memory = Memory::new();
            let from = memory.alloc_from("in", &to_bytes(&data));
            let to = memory.alloc("out", bytes.into());
            let l = Launch::new("bulk", 1, 64)
                .param(&from.to_le_bytes())
                .param(&to.to_le_bytes())
                .param(&bytes.to_le_bytes());
            let report = launch(&module, &mut memory, &l.dynamic_shared(bytes).schedule(seed)).unwrap();
            clean(&report, "bulk");
            let out = u32s(&memory.read(to, bytes as usize).unwrap());
            assert!(out.iter().zip(&data).all(|(o, d)| *o == d + 1));
            let (read, written) = (report.counters.global["in"].read, report.counters.global["out"].written);
            for t in [read, written] {
                assert_eq!((t.requests, t.bytes, t.unique_bytes), (1, bytes.into(), bytes.into()));
                assert_eq!(
                    (t.sectors, t.unique_sectors),
                    (u64::from(bytes).div_ceil(32), u64::from(bytes).div_ceil(32))
                );
            }
        }
    }
}

/// A tensor and a box.
struct Boxed {
    element: TensorType,
    extents: &'static [u64],
    /// Bytes, innermost left out.
    strides: &'static [u64],
    boxes: &'static [u32],
    steps: &'static [u32],
    swizzle: Swizzle,
    at: &'static [i32],
}

/// Where a byte of an unswizzled box lies: from the row of 128 bytes that it is in, as the ISA document's figures show it.
fn place(swizzle: Swizzle, byte: usize) -> usize {
    let (row, piece) = (byte / 128 % 8, byte / 16 % 8);
    let to = match swizzle {
        Swizzle::None => piece,
        Swizzle::B128 => piece ^ row,
        Swizzle::B64 => piece ^ (row % 4),
        Swizzle::B32 => piece ^ (row % 2),
    };
    byte / 128 * 128 + to * 16 + byte % 16
}

#[test]
fn tensor_copies_move_boxes() {
    use TensorType::{Bf16, F32, F64, U8};
    let cases = [
        Boxed {
            element: F32,
            extents: &[37],
            strides: &[],
            boxes: &[16],
            steps: &[1],
            swizzle: Swizzle::None,
            at: &[28],
        },
        Boxed {
            element: U8,
            extents: &[200],
            strides: &[],
            boxes: &[64],
            steps: &[1],
            swizzle: Swizzle::None,
            at: &[-9],
        },
        Boxed {
            element: Bf16,
            extents: &[64, 50],
            strides: &[144],
            boxes: &[64, 24],
            steps: &[1, 1],
            swizzle: Swizzle::B128,
            at: &[0, 39],
        },
        Boxed {
            element: Bf16,
            extents: &[70, 9],
            strides: &[160],
            boxes: &[32, 16],
            steps: &[1, 1],
            swizzle: Swizzle::B64,
            at: &[40, -3],
        },
        Boxed {
            element: U8,
            extents: &[96, 40],
            strides: &[96],
            boxes: &[32, 40],
            steps: &[1, 1],
            swizzle: Swizzle::B32,
            at: &[32, 0],
        },
        Boxed {
            element: F32,
            extents: &[8, 21],
            strides: &[48],
            boxes: &[8, 15],
            steps: &[1, 2],
            swizzle: Swizzle::None,
            at: &[0, 3],
        },
        Boxed {
            element: Bf16,
            extents: &[64, 30, 3],
            strides: &[384, 128],
            boxes: &[64, 16, 2],
            steps: &[1, 1, 1],
            swizzle: Swizzle::B128,
            at: &[0, 20, 1],
        },
        Boxed {
            element: F64,
            extents: &[4, 3, 5, 2],
            strides: &[48, 160, 1024],
            boxes: &[2, 3, 4, 2],
            steps: &[1, 1, 1, 1],
            swizzle: Swizzle::None,
            at: &[1, 1, 2, 0],
        },
        Boxed {
            element: F32,
            extents: &[12, 3, 2, 3, 2],
            strides: &[48, 144, 304, 928],
            boxes: &[4, 2, 2, 2, 2],
            steps: &[1, 1, 1, 1, 1],
            swizzle: Swizzle::None,
            at: &[6, -1, 0, 1, 1],
        },
    ];
    let module = Module::parse(PTX).unwrap();
    for c in &cases {
        for seed in 0..SCHEDULES {
            tensor_copy(&module, c, seed);
        }
    }
}

fn tensor_copy(module: &Module, c: &Boxed, seed: u64) {
    let (rank, element) = (c.extents.len(), c.element.bytes() as usize);
    let size = c
        .extents
        .iter()
        .zip(std::iter::once(&(element as u64)).chain(c.strides))
        .map(|(n, s)| (n - 1) * s)
        .sum::<u64>() as usize
        + element;
    let mut numbers = Numbers::new(3);
    let data: Vec<u8> = (0..size).map(|_| numbers.next() as u8).collect();
    let mut memory = Memory::new();
    let from = memory.alloc_from("in", &data);
    let to = memory.alloc_filled("out", size as u64, 0xee);
    let map = |a| {
        TensorMap::tiled(c.element, a, c.extents, c.strides, c.boxes, c.steps, c.swizzle, OobFill::Zeros)
            .unwrap()
    };
    let counts: Vec<u32> = c.boxes.iter().zip(c.steps).map(|(b, s)| b.div_ceil(*s)).collect();
    let bytes = counts.iter().product::<u32>() as usize * element;
    assert_eq!(map(from).box_bytes(), bytes as u64);
    let dump = memory.alloc("dump", bytes as u64);
    let mut l = Launch::new(format!("tensor{rank}"), 1, 32)
        .param(&map(from).bytes())
        .param(&map(to).bytes())
        .param(&dump.to_le_bytes())
        .param(&(bytes as u32).to_le_bytes())
        .dynamic_shared(bytes as u32)
        .schedule(seed);
    for d in 0..5 {
        l = l.param(&c.at.get(d).copied().unwrap_or(0).to_le_bytes());
    }
    let report = launch(module, &mut memory, &l).unwrap();
    clean(&report, &format!("{:?}", c.extents));
    // Element by element, with coordinates.
    let mut expected = vec![0u8; bytes];
    let mut copied = vec![0xeeu8; size];
    let mut inside = 0;
    for k in 0..bytes / element {
        let mut rest = k as u32;
        let mut at = Some(0usize);
        for (d, &count) in counts.iter().enumerate() {
            let x = i64::from(c.at[d]) + i64::from(rest % count) * i64::from(c.steps[d]);
            rest /= count;
            let stride = if d == 0 { element } else { c.strides[d - 1] as usize };
            at = at.filter(|_| x >= 0 && x < c.extents[d] as i64).map(|a| a + x as usize * stride);
        }
        if let Some(a) = at {
            for b in 0..element {
                expected[place(c.swizzle, k * element + b)] = data[a + b];
            }
            copied[a..a + element].copy_from_slice(&data[a..a + element]);
            inside += element as u64;
        }
    }
    assert_eq!(memory.read(dump, bytes).unwrap(), expected, "{:?} as it lies in shared memory", c.extents);
    assert_eq!(memory.read(to, size).unwrap(), copied, "{:?} copied out", c.extents);
    let (read, written) = (report.counters.global["in"].read, report.counters.global["out"].written);
    assert_eq!((read.bytes, read.unique_bytes, read.requests), (inside, inside, 1));
    assert_eq!((written.bytes, written.unique_bytes), (inside, inside));
    assert!(read.sectors >= inside.div_ceil(32) && read.sectors >= read.unique_sectors);
}

#[test]
fn reductions_add_up() {
    let module = Module::parse(PTX).unwrap();
    for seed in 0..SCHEDULES {
        let mut memory = Memory::new();
        let f = memory.alloc_from("f", &1000f32.to_le_bytes().repeat(16));
        let h = memory.alloc_filled("h", 32, 0);
        let u = memory.alloc_filled("u", 64, 0);
        let map =
            TensorMap::tiled(TensorType::U32, u, &[16], &[], &[16], &[1], Swizzle::None, OobFill::Zeros)
                .unwrap();
        let l =
            Launch::new("reduce", 3, 32).param(&map.bytes()).param(&f.to_le_bytes()).param(&h.to_le_bytes());
        let report = launch(&module, &mut memory, &l.dynamic_shared(192).schedule(seed)).unwrap();
        clean(&report, "reduce");
        for (i, v) in u32s(&memory.read(f, 64).unwrap()).into_iter().enumerate() {
            assert!((f64::from(f32::from_bits(v)) - (1000.0 + 4.5 * i as f64 + 3.0)).abs() < 1e-3);
        }
        assert!(
            words_of(&memory.read(h, 32).unwrap()).into_iter().all(|v| (from_bf16(v) - 4.5).abs() < 1e-9)
        );
        assert_eq!(u32s(&memory.read(u, 64).unwrap()), (0..16).map(|i| 3 * i).collect::<Vec<_>>());
        assert_eq!(
            (report.counters.global["f"].written.bytes, report.counters.global["f"].read.bytes),
            (192, 192)
        );
    }
}

#[test]
fn phases_hand_over() {
    let module = Module::parse(PTX).unwrap();
    for seed in 0..SCHEDULES {
        let mut memory = Memory::new();
        let out = memory.alloc("out", 512);
        let report = launch(
            &module,
            &mut memory,
            &Launch::new("phases", 1, 128).param(&out.to_le_bytes()).schedule(seed),
        )
        .unwrap();
        clean(&report, "phases");
        let expected: Vec<u32> = (0..128).map(|t| 100 * 15 + 6 * ((t + 37) % 128)).collect();
        assert_eq!(u32s(&memory.read(out, 512).unwrap()), expected);
    }
}

#[test]
fn copies_of_threads_arrive() {
    let module = Module::parse(PTX).unwrap();
    for seed in 0..SCHEDULES {
        let mut memory = Memory::new();
        let from = memory.alloc_from("in", &to_bytes(&(0..256).collect::<Vec<_>>()));
        let out = memory.alloc("out", 256);
        let l = Launch::new("copy_arrive", 1, 64)
            .param(&from.to_le_bytes())
            .param(&out.to_le_bytes())
            .schedule(seed);
        clean(&launch(&module, &mut memory, &l).unwrap(), "copy_arrive");
        assert_eq!(
            u32s(&memory.read(out, 256).unwrap()),
            (0..64).map(|t| (t + 40) % 64 * 4 + 1).collect::<Vec<_>>()
        );
    }
}

#[test]
fn clusters_talk() {
    let module = Module::parse(PTX).unwrap();
    for seed in 0..SCHEDULES {
        let mut memory = Memory::new();
        let from = memory.alloc_from("in", &to_bytes(&(0..32).collect::<Vec<_>>()));
        let out = memory.alloc("out", 512);
        let l =
            Launch::new("cluster", 4, 32).param(&from.to_le_bytes()).param(&out.to_le_bytes()).schedule(seed);
        clean(&launch(&module, &mut memory, &l).unwrap(), "cluster");
        // Each CTA has the multicast data, and the other's rank in its mail.
        let expected: Vec<u32> = (0..128).map(|i| 31 - i % 32 + 1000 * (7 + (i / 32 + 1) % 2)).collect();
        assert_eq!(u32s(&memory.read(out, 512).unwrap()), expected);
        let l = Launch::new("cluster", 3, 32).param(&from.to_le_bytes()).param(&out.to_le_bytes());
        assert!(launch(&module, &mut memory, &l).unwrap_err().to_string().contains("do not divide"));
    }
}

#[test]
fn control_instructions_do_what_they_say() {
    let module = Module::parse(PTX).unwrap();
    for seed in 0..SCHEDULES {
        let mut memory = Memory::new();
        let out = memory.alloc("out", 1024);
        let report = launch(
            &module,
            &mut memory,
            &Launch::new("control", 1, 256).param(&out.to_le_bytes()).schedule(seed),
        )
        .unwrap();
        clean(&report, "control");
        assert_eq!(
            u32s(&memory.read(out, 1024).unwrap()),
            (0..256).map(|t| if t % 32 == 0 { 100 } else { 0 }).collect::<Vec<_>>()
        );
    }
}
