//! Calls to launches: every field's place, every refusal, the arrays that kernels look up.

use super::*;
use crate::abi::{MAX_BUCKETS, Params, Task};
use crate::geometry::LayerGeometry;
use crate::launch::{Family, Grid, LaunchRule, Phase};
use crate::plan::Plan;

fn layer() -> LayerCall {
    let shape = HeadShape { heads: 4, kv_heads: 2, head_dim: 64 };
    LayerCall { shape, layer: 2, layer_base: [7; MAX_BUCKETS] }
}

fn kernel(family: Family, phase: Phase) -> KernelFacts {
    let grid = match phase {
        Phase::Prefill => Grid::Tiles { rows: 128 },
        Phase::Decode => Grid::Split { per_sm: 2 },
    };
    KernelFacts { phase, family, rule: LaunchRule { threads: 128, shared_bytes: 4096, grid } }
}

/// Five requests, the longest of `longest_chunk` tokens, on three multiprocessors.
fn launches(kernel: &KernelFacts, tensors: &Tensors, longest_chunk: u32) -> Result<Vec<Launch>, CallError> {
    let step = StepTable { table: Table::addresses(0x100, 8), batch: 5, rows: 3, longest_chunk };
    layer().launches(kernel, tensors, &step, Scratch { partials: 16, counters: 32 }, 3)
}

/// Views of one fused product of 3 rows: 4 query heads, 2 of keys, 2 of values.
fn fused() -> Tensors {
    let view = |head: u64, heads| View {
        address: 0x1000 + head * 128,
        rows: 3,
        heads,
        token_stride: 8 * 64,
        head_stride: 64,
    };
    Tensors {
        q: view(0, 4),
        k: view(4, 2),
        v: view(6, 2),
        o: View::packed(0x9000, 3, 4, 64),
        lse: Some(View { address: 0xa004, rows: 3, heads: 4, token_stride: 1, head_stride: 3 }),
    }
}

fn params(tensors: &Tensors) -> Result<Params, CallError> {
    let launches = launches(&kernel(Family::Sm80, Phase::Prefill), tensors, 300)?;
    Ok(*launches[1].block.call())
}

#[test]
fn a_call_is_an_ordered_list_of_launches() {
    let shapes = |family, phase, longest| -> Vec<(Task, [u32; 3], usize)> {
        let list = launches(&kernel(family, phase), &fused(), longest).unwrap();
        let bytes = |launch: &Launch| launch.block.bytes(|_| Ok::<_, ()>([0; 128])).unwrap().len();
        list.iter().map(|launch| (launch.task, launch.grid, bytes(launch))).collect()
    };
    // Tiles of 128 rows of 300 tokens; 4 heads, 2 KV heads; 5 requests. Two CTAs for each of 3 multiprocessors.
    for (family, prefill, decode) in [(Family::Sm80, 696, 696), (Family::Sm90, 1088, 704)] {
        assert_eq!(
            shapes(family, Phase::Prefill, 300),
            [(Task::Attend, [3, 4, 5], prefill), (Task::Fill, [3, 2, 5], prefill)]
        );
        assert_eq!(shapes(family, Phase::Decode, 1), [(Task::Attend, [6, 1, 1], decode)]);
        assert_eq!(shapes(family, Phase::Decode, 0).len(), 1);
        assert!(shapes(family, Phase::Prefill, 0).is_empty());
        for phase in [Phase::Prefill, Phase::Decode] {
            let abi = Block::abi(family, phase);
            let expected = if phase == Phase::Prefill { prefill } else { decode };
            assert_eq!(abi.params_bytes, expected);
        }
    }
    let error = launches(&kernel(Family::Sm80, Phase::Decode), &fused(), 2).unwrap_err();
    assert_eq!(error, CallError::NotOneToken { found: 2 });
}

#[test]
fn hopper_kernels_get_their_tensors_as_maps_and_their_own_part_of_the_table() {
    let list = launches(&kernel(Family::Sm90, Phase::Prefill), &fused(), 3).unwrap();
    let Block::HopperPrefill { maps: [q, k, _], .. } = list[0].block else { panic!("{list:?}") };
    let expected =
        TensorMap { address: 0x1000, extents: [64, 3, 1, 4], strides: [1024, 128, 128], box_rows: 64 };
    assert_eq!(q, expected);
    assert_eq!((k.address, k.extents[3], k.box_extents()), (0x1200, 2, [64, 128, 1, 1]));
    let list = launches(&kernel(Family::Sm90, Phase::Decode), &fused(), 1).unwrap();
    let Block::HopperDecode { first_tiles, .. } = list[0].block else { panic!("{list:?}") };
    assert_eq!(list[0].waits_for, WaitsFor::AllButTheLast);
    // The third layer's: behind 8 requests' arrays of 28 bytes, and two layers of 9 entries.
    assert_eq!(first_tiles, 0x100 + 8 * 28 + 2 * 36);
    // The requests behind the first two, as a step's prefills get them.
    let (all, rest) = (Table::addresses(0x100, 8), Table::addresses(0x100, 8).skip(2));
    assert_eq!([rest.slabs - all.slabs, rest.starts - all.starts, rest.cached - all.cached], [16, 16, 8]);
    let mut wide = fused();
    wide.k.token_stride = 1 << 40;
    let error = launches(&kernel(Family::Sm90, Phase::Prefill), &wide, 3).unwrap_err();
    assert_eq!(error.to_string(), "`k` is larger than the address space");
}

#[test]
fn every_field_has_its_place() {
    let p = params(&fused()).unwrap();
    assert_eq!([p.q, p.k, p.v, p.o, p.lse], [0x1000, 0x1200, 0x1300, 0x9000, 0xa004]);
    assert_eq!([p.slabs, p.starts, p.buckets, p.cached, p.chunk], [0x100, 0x140, 0x180, 0x1a0, 0x1c0]);
    assert_eq!([p.q_token, p.k_token, p.v_token, p.o_token, p.lse_token], [512, 512, 512, 256, 1]);
    assert_eq!([p.q_head, p.k_head, p.v_head, p.o_head, p.lse_head], [64, 64, 64, 64, 3]);
    assert_eq!((p.partials, p.counters, p.batch, p.task, p.layer_base[63]), (16, 32, 5, 1, 7));
    let without = params(&Tensors { lse: None, ..fused() }).unwrap();
    assert_eq!([without.lse, without.lse_token as u64], [0, 0]);
}

#[test]
fn each_thing_wrong_with_a_tensor_is_named() {
    let with = |change: fn(&mut Tensors)| {
        let mut tensors = fused();
        change(&mut tensors);
        params(&tensors).unwrap_err().to_string()
    };
    assert_eq!(with(|t| t.k.heads = 4), "`k` has 4 heads, expected 2");
    assert_eq!(with(|t| t.v.rows = 2), "`v` has 2 rows, expected 3: those of the batch's requests");
    assert_eq!(
        with(|t| t.q.address += 8),
        "`q` is at device address 0x1008, expected a multiple of 16 and not 0"
    );
    assert_eq!(
        with(|t| t.o.address = 0),
        "`o` is at device address 0x0, expected a multiple of 16 and not 0"
    );
    assert_eq!(
        with(|t| t.q.token_stride += 4),
        "`q` has a token stride of 516 elements, expected a multiple of 8"
    );
    assert_eq!(
        with(|t| t.k.head_stride = 63),
        "`k` has a head stride of 63 elements, expected a multiple of 8"
    );
    assert_eq!(with(|t| t.k.token_stride = 1 << 62), "`k` is larger than the address space");
    let overlap = "overlap: an output needs strides that keep them apart";
    assert_eq!(with(|t| t.o.head_stride = 56), format!("the rows or heads of `o` {overlap}"));
    assert_eq!(with(|t| t.o.token_stride = 248), format!("the rows or heads of `o` {overlap}"));
    assert_eq!(
        with(|t| t.lse = Some(View::packed(0xa002, 3, 4, 1))),
        "`lse` is at device address 0xa002, expected a multiple of 4 and not 0"
    );
    assert_eq!(
        with(|t| t.lse = Some(View { head_stride: 2, ..t.lse.unwrap() })),
        format!("the rows or heads of `lse` {overlap}")
    );
}

/// Inputs may repeat rows, and outputs may have heads outside rows.
#[test]
fn unusual_strides_that_work_are_taken() {
    let mut tensors = fused();
    tensors.k.token_stride = 0;
    tensors.o = View { address: 0x9000, rows: 3, heads: 4, token_stride: 64, head_stride: 3 * 64 };
    assert!(params(&tensors).is_ok());
}

#[test]
fn the_table_holds_what_the_kernels_look_up() {
    let request = |slab, chunk, rows| Request { slab, bucket: 3, cached: 11, chunk, rows };
    let batch = Batch::new(vec![request(0xaa00, 5, 5), request(0, 0, 1), request(0xbb00, 2, 4)]).unwrap();
    assert_eq!((batch.len(), batch.rows(), batch.longest_chunk()), (3, 10, 5));
    let bytes = batch.table(4, &[], 3);
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let at = Table::addresses(0, 4);
    assert_eq!(bytes.len() as u64, Table::bytes(4, 0));
    assert_eq!([0, 1, 2, 3].map(|b| word(at.slabs as usize + 8 * b)), [0xaa00, 0, 0xbb00, 0]);
    assert_eq!([0, 1, 2, 3].map(|b| word(at.starts as usize + 8 * b)), [0, 5, 6, 0]);
    assert_eq!([0, 2].map(|b| half(at.buckets as usize + 4 * b)), [3, 3]);
    assert_eq!([0, 2].map(|b| half(at.cached as usize + 4 * b)), [11, 11]);
    assert_eq!([0, 1, 2, 3].map(|b| half(at.chunk as usize + 4 * b)), [5, 0, 2, 0]);
    assert!(matches!(Batch::new(Vec::new()), Err(CallError::BatchSize { found: 0, .. })));
    let error = Batch::new(vec![request(1, 0, 0), request(1, 3, 2)]).unwrap_err().to_string();
    assert_eq!(error, "request 1 has 3 new tokens in 2 rows");
}

#[test]
fn the_table_holds_the_tiles_before_each_request() {
    // KV spans 128 and 576 of 1024; 64 tokens are a tile.
    let plan: Plan = serde_json::from_str(
        r#"{"format": "moac.plan/1", "alphas": [[128, 64]], "betas": [[0, 0.5]],
            "model": {"name": "two", "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_dim": 64}}"#,
    )
    .unwrap();
    let geometry = LayerGeometry::new(&plan, 0, 0..2, &[1024]);
    let request = |cached, chunk| Request { slab: 0xaa00, bucket: 0, cached, chunk, rows: 1 };
    let batch = Batch::new(vec![request(0, 1), request(64, 1), request(9, 0), request(900, 1)]).unwrap();
    let expected = [0, 2, 6, 6, 17];
    assert_eq!(batch.first_tiles(&geometry).collect::<Vec<_>>(), expected);
    let bytes = batch.table(6, &[geometry.clone(), geometry.clone()], 4);
    let table = Table::addresses(0, 6);
    for layer in 0..2 {
        let at = table.first_tiles_of(layer) as usize;
        let half = |n: usize| i32::from_le_bytes(bytes[at + 4 * n..at + 4 * n + 4].try_into().unwrap());
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(half), [0, 2, 6, 6, 17, 17, 17]);
    }
    // Two decodes before two prefills: the others have no tiles to split.
    let bytes = batch.table(6, &[geometry], 2);
    let at = table.first_tiles_of(0) as usize;
    let half = |n: usize| i32::from_le_bytes(bytes[at + 4 * n..at + 4 * n + 4].try_into().unwrap());
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(half), [0, 2, 6, 6, 6, 6, 6]);
}
