//! Lowering and rendering: snapshots for every shipped plan, and what must hold of any.

use std::collections::BTreeSet;

use moac_compiler::lower::{self, Error, Family, KernelSpec, Lowered, Target};
use moac_compiler::render::Renderer;
use moac_compiler::{headers, names};
use moac_runtime::arch::Arch;
use moac_runtime::launch::Phase;
use moac_runtime::plan::{DType, Plan};

use crate::plans;

/// A plan lowered whole for one architecture, at `lengths` or the default ones.
fn lowered(plan: &Plan, lengths: &[u32]) -> Lowered {
    let target = Target {
        kv_heads: 0..plan.model.num_kv_heads,
        lengths: lower::buckets(plan, lengths).unwrap().buckets,
        dtype: DType::Bf16,
        archs: vec![Arch::Sm90a],
    };
    lower::lower(plan, &target).unwrap()
}

fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.add_filter(concat!("moac ", env!("CARGO_PKG_VERSION"), ";"), "moac [version];");
    settings
}

#[test]
fn the_lowering_of_every_shipped_plan() {
    let mut settings = settings();
    settings.set_snapshot_path("snapshots/lowering");
    settings.bind(|| {
        for name in plans::names() {
            // Four buckets show what there is to see; the default sixteen would be pages of it.
            let plan = plans::shipped(&name);
            insta::assert_snapshot!(name, lowered(&plan, &[1024, 2048, 4096, 8192]).to_string());
        }
    });
}

#[test]
fn the_source_of_one_layer_of_every_shipped_plan() {
    let mut settings = settings();
    settings.set_snapshot_path("snapshots/render");
    settings.bind(|| {
        let renderer = Renderer::new().unwrap();
        for name in plans::names() {
            let plan = plans::shipped(&name);
            let lowered = lowered(&plan, &[]);
            // The last layer: the first ones are dense.
            let kernels = lowered.layers[lowered.layers.len() - 1][0];
            for phase in [Phase::Prefill, Phase::Decode] {
                let spec = &lowered.specs[lowered.kernels[kernels.of(phase)].spec];
                insta::assert_snapshot!(format!("{name}-{}", phase.name()), renderer.render(spec).unwrap());
            }
        }
    });
}

/// The portable family's text, of one plan: the others differ in numbers only.
#[test]
fn the_source_of_a_portable_kernel() {
    let mut settings = settings();
    settings.set_snapshot_path("snapshots/render");
    settings.bind(|| {
        let plan = plans::shipped("llama-3-8b");
        let target =
            Target { kv_heads: 0..8, lengths: vec![1024, 4096], dtype: DType::Bf16, archs: vec![Arch::Sm80] };
        let lowered = lower::lower(&plan, &target).unwrap();
        for phase in [Phase::Prefill, Phase::Decode] {
            let spec = lowered.specs.iter().rfind(|spec| spec.phase == phase).unwrap();
            let text = Renderer::new().unwrap().render(spec).unwrap();
            insta::assert_snapshot!(format!("llama-3-8b-{}-portable", phase.name()), text);
        }
    });
}

#[test]
fn a_rendered_kernel_is_short_and_the_same_every_time() {
    for name in plans::names() {
        let lowered = lowered(&plans::shipped(&name), &[]);
        for spec in &lowered.specs {
            let text = Renderer::new().unwrap().render(spec).unwrap();
            assert!(text.lines().count() <= 60, "{name}");
            assert_eq!(text, Renderer::new().unwrap().render(&spec.clone()).unwrap());
            assert!(text.contains(&format!("\n{}(const __grid_constant__", names::symbol(spec))));
            assert!(text.ends_with("}\n") && text.matches('@').count() == 1);
            let closure = headers::closure(&text);
            assert!(closure.contains_key(headers::of_kernel(spec.family, spec.phase).as_str()));
            assert!(closure.contains_key("moac/params.cuh"));
        }
    }
}

#[test]
fn shipped_plans_have_a_kernel_for_each_distinct_layer_and_phase() {
    let mut counts = Vec::new();
    for name in plans::names() {
        let plan = plans::shipped(&name);
        let lowered = lowered(&plan, &[]);
        counts.push((name, lowered.specs.len()));
        let symbols: BTreeSet<&str> = lowered.kernels.iter().map(|kernel| kernel.symbol.as_str()).collect();
        assert_eq!(symbols.len(), lowered.specs.len(), "two specs with one symbol");
        for (geometry, kernels) in lowered.geometry.layers.iter().zip(&lowered.layers) {
            for phase in [Phase::Prefill, Phase::Decode] {
                let spec = &lowered.specs[lowered.kernels[kernels[0].of(phase)].spec];
                assert_eq!(*spec, KernelSpec::new(&plan, geometry, phase, DType::Bf16, Arch::Sm90a));
            }
        }
    }
    // A searched plan has hardly two layers alike.
    let expected = [
        ("dense", 2),
        ("llama-3-8b", 12),
        ("odd-heads", 8),
        ("one-rule-per-head", 4),
        ("smollm2-135m-0.125", 60),
        ("smollm2-135m-0.25", 60),
        ("smollm2-135m-0.5", 58),
        ("vicuna-7b", 10),
    ];
    assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn layers_that_read_the_same_are_one_kernel_whatever_their_rules() {
    let mut plan = plans::shipped("dense");
    let heads = plan.model.num_heads as usize;
    // 0.5N and 512 are one span at 1024 and two at 2048; a second group that is never longer is another kernel.
    plan.model.num_layers = 3;
    plan.alphas = vec![vec![0.0; heads], vec![512.0; heads], [vec![0.0; heads - 1], vec![512.0]].concat()];
    plan.betas = vec![vec![0.5; heads], vec![0.0; heads], [vec![0.5; heads - 1], vec![0.0]].concat()];
    let decode = |lengths: &[u32]| -> Vec<usize> {
        lowered(&plan, lengths).layers.iter().map(|of| of[0].decode).collect()
    };
    assert_eq!(decode(&[1024]), [1, 1, 3]);
    assert_eq!(decode(&[1024, 2048]), [1, 3, 5]);
}

#[test]
fn head_order_is_longest_first_and_stable() {
    for name in plans::names() {
        for spec in &lowered(&plans::shipped(&name), &[]).specs {
            let last = spec.buckets.last().unwrap();
            let span = |head: u32| last.span[spec.group_of_head[head as usize] as usize];
            let order = &spec.head_order;
            assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), spec.heads as usize);
            let sorted = |pair: &[u32]| {
                (std::cmp::Reverse(span(pair[0])), pair[0]) < (std::cmp::Reverse(span(pair[1])), pair[1])
            };
            assert!(order.windows(2).all(sorted), "{order:?}");
        }
    }
}

#[test]
fn architectures_of_one_family_share_specs_and_differ_as_kernels() {
    let plan = plans::shipped("odd-heads");
    let target = Target {
        kv_heads: 1..3,
        lengths: vec![1024],
        dtype: DType::F16,
        archs: vec![Arch::Sm80, Arch::Sm90, Arch::Sm90a],
    };
    let lowered = lower::lower(&plan, &target).unwrap();
    let of_family = |family| lowered.specs.iter().filter(|spec| spec.family == family).count();
    let (portable, hopper) = (of_family(Family::Sm80), of_family(Family::Sm90));
    assert_eq!((portable, portable + hopper), (hopper, lowered.specs.len()));
    assert_eq!(lowered.kernels.len(), 2 * portable + hopper);
    for of in &lowered.layers {
        assert_eq!(of.len(), 3);
        let symbol = |n: usize| &lowered.kernels[of[n].decode].symbol;
        assert_eq!(symbol(0), symbol(1));
        assert_ne!(symbol(0), symbol(2));
        for (arch, kernels) in target.archs.iter().zip(of) {
            assert_eq!(lowered.kernels[kernels.prefill].arch, *arch);
            let family = lowered.specs[lowered.kernels[kernels.decode].spec].family;
            assert_eq!(family == Family::Sm90, *arch == Arch::Sm90a);
        }
    }
    assert!(lowered.specs.iter().all(|spec| (spec.heads, spec.kv_heads, spec.dtype) == (6, 2, DType::F16)));
}

#[test]
fn a_range_that_is_none_is_refused() {
    let plan = plans::shipped("odd-heads");
    for (start, end) in [(0, 0), (2, 1), (0, 4), (3, 4), (u32::MAX, u32::MAX)] {
        let target =
            Target { kv_heads: start..end, lengths: vec![1024], dtype: DType::Bf16, archs: vec![Arch::Sm80] };
        assert_eq!(lower::lower(&plan, &target).unwrap_err(), Error::KvHeads { start, end, kv_heads: 3 });
    }
}

mod lengths {
    use moac_compiler::lower::{Error, buckets};
    use moac_runtime::plan::Plan;

    use crate::plans;

    fn plan(context: Option<u32>, min_span: u32) -> Plan {
        let mut plan = plans::shipped("odd-heads");
        plan.model.context = context;
        plan.min_span = min_span;
        plan
    }

    #[test]
    fn the_default_is_every_1024_up_to_16k_or_the_context() {
        let default = |context, min_span| buckets(&plan(context, min_span), &[]).unwrap();
        let all: Vec<u32> = (1..=16).map(|step| step * 1024).collect();
        assert_eq!(default(Some(262_144), 128).buckets, all);
        assert_eq!(default(None, 128).buckets, all);
        assert_eq!(default(Some(8192), 128).buckets, all[..8]);
        assert_eq!(default(Some(3000), 128).buckets, all[..2]);
        assert_eq!(default(None, 2112).buckets, all[2..]);
        assert_eq!(default(Some(1000), 128).buckets, [1024]);
        assert_eq!(default(None, 20_032).buckets, [20_032]);
        assert!(default(Some(262_144), 128).notes.is_empty());
    }

    #[test]
    fn other_lengths_are_rounded_up_with_a_note_and_sorted() {
        let found = buckets(&plan(Some(8192), 128), &[4096, 1, 1000, 8191, 1024, 64, 8192]).unwrap();
        assert_eq!(found.buckets, [128, 1024, 4096, 8192]);
        assert_eq!(
            found.notes,
            [
                "length 1 rounded up to 128, the plan's min_span",
                "length 1000 rounded up to 1024, a multiple of 64",
                "length 8191 rounded up to 8192, a multiple of 64",
                "length 64 rounded up to 128, the plan's min_span",
            ]
        );
    }

    #[test]
    fn what_cannot_be_a_bucket_is_an_error() {
        let error = |context, asked: &[u32]| buckets(&plan(context, 128), asked).unwrap_err();
        assert_eq!(error(None, &[1024, 0]), Error::ZeroLength);
        assert_eq!(error(Some(8192), &[8193]), Error::BeyondContext { length: 8193, context: 8192 });
        assert_eq!(
            error(None, &[1 << 20, (1 << 20) + 1]),
            Error::TooLong { length: (1 << 20) + 1, max: 1 << 20 }
        );
        assert_eq!(error(Some(u32::MAX), &[u32::MAX]), Error::TooLong { length: u32::MAX, max: 1 << 20 });
        let many: Vec<u32> = (2..=66).map(|tiles| tiles * 64).collect();
        assert_eq!(error(None, &many), Error::TooManyBuckets { found: 65, max: 64 });
        assert_eq!(buckets(&plan(None, 128), &many[1..]).unwrap().buckets, many[1..]);
    }
}
