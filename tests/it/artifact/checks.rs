//! Every check of [`Artifact::from_bytes`] in its order, each with its exact message.

use std::collections::BTreeMap;

use moac_runtime::digest::Digest;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use super::{bytes, manifest_json, pack, refusal, sample};

/// The message for the sample with its manifest changed and sealed anew.
fn message(change: impl FnOnce(&mut Value)) -> String {
    let mut manifest = manifest_json();
    change(&mut manifest);
    refusal(pack(&manifest.to_string(), &sample().1)).to_string()
}

/// The message for the sample with the value at a JSON pointer replaced.
fn message_with(pointer: &str, value: Value) -> String {
    message(|manifest| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        let parent = manifest.pointer_mut(parent).expect(pointer);
        match parent {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value,
            parent => parent[field] = value,
        }
    })
}

#[test]
fn other_files_are_not_artifacts() {
    let text = |bytes: &[u8]| refusal(bytes.to_vec()).to_string();
    assert_eq!(text(b""), "not a moac artifact: 0 bytes are too few for a header");
    assert_eq!(
        text(b"{\"alphas\": []}"),
        "not a moac artifact: a header of 8314041219166577275 bytes in a file of 14"
    );
    let plain =
        safetensors::serialize([("x", TensorView::new(Dtype::U8, vec![1], &[0]).unwrap())], None).unwrap();
    assert_eq!(
        text(&plain),
        "not a moac artifact: no moac header: missing field `__metadata__` at line 1 column 53"
    );
    assert_eq!(
        text(&pack("{}", &BTreeMap::new())),
        "not a moac artifact: no format version: missing field `format` at line 1 column 2"
    );
}

#[test]
fn check_1_version() {
    assert_eq!(
        message_with("/format", json!(1)),
        "format version 1, expected 3: compile the plan again with this version of moac"
    );
    // The rest of another version's manifest is not looked at.
    let future = refusal(pack(r#"{"format":99}"#, &BTreeMap::new())).to_string();
    assert_eq!(future, "format version 99, expected 3: compile the plan again with this version of moac");
}

#[test]
fn check_2_bounds() {
    let mut short = bytes();
    short.pop();
    let length = short.len();
    assert_eq!(
        refusal(short).to_string(),
        format!(
            "truncated or damaged: the tensor table does not fit the file of {length} bytes: \
             incomplete metadata, file not fully covered"
        )
    );
    let (header, rest) = {
        let bytes = bytes();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        (String::from_utf8(bytes[8..8 + length].to_vec()).unwrap(), bytes[8 + length..].to_vec())
    };
    let with_header = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&rest);
        refusal(bytes).to_string()
    };
    let name = "headers/moac/params.cuh";
    let entry = format!(r#""{name}":{{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}"#);
    assert!(header.contains(&entry), "{header}");
    let overlapping = with_header(&header.replace(&entry, &entry.replace("[0,9]", "[1,10]")));
    assert!(overlapping.ends_with("invalid offset for tensor `headers/moac/params.cuh`"), "{overlapping}");
    let wide = entry.replace("U8", "I16").replace("[9]", "[3]").replace("[0,9]", "[0,6]");
    let wide = with_header(&header.replace(&entry, &wide));
    assert!(wide.starts_with("truncated or damaged"), "{wide}");
    let square = with_header(&header.replace(&entry, &entry.replace("[9]", "[3,3]")));
    assert_eq!(square, format!("tensor `{name}` is U8 [3, 3], expected U8 of one dimension"));
}

#[test]
fn check_3_schema() {
    assert_eq!(
        message(|manifest| {
            manifest.as_object_mut().unwrap().remove("producer");
        })
        .split(" at line")
        .next()
        .unwrap(),
        "the manifest does not follow the schema: missing field `producer`"
    );
    let typed = message_with("/kernels/0/launch/threads", json!("many"));
    assert!(
        typed.starts_with(
            "the manifest does not follow the schema: invalid type: string \"many\", expected u32"
        ),
        "{typed}"
    );
    let arch = message_with("/archs/0", json!("sm_75"));
    assert!(arch.contains("unknown architecture `sm_75`"), "{arch}");
}

#[test]
fn check_3_tensor_names() {
    let (_, mut tensors) = sample();
    let manifest = manifest_json().to_string();
    let gone = "sm_80/moac_decode_bf16_d64_r3_a.cu";
    tensors.remove(gone);
    assert_eq!(
        refusal(pack(&manifest, &tensors)).to_string(),
        format!("tensor `{gone}` is missing: the manifest names it")
    );

    let (_, mut tensors) = sample();
    tensors.insert("stowaway".to_owned(), vec![1]);
    let unknown = "unknown tensor `stowaway`: the manifest does not name it";
    assert_eq!(refusal(pack(&manifest, &tensors)).to_string(), unknown);
    // Nor does a digest alone make it one of the artifact's.
    let mut with_digest = manifest_json();
    with_digest["tensors"]["stowaway"] = json!(Digest::of(&[1]));
    assert_eq!(refusal(pack(&with_digest.to_string(), &tensors)).to_string(), unknown);

    assert_eq!(
        message_with("/kernels/1/symbol", json!("other")),
        "tensor `sm_80/other.cubin` is missing: the manifest names it"
    );
    assert_eq!(
        message_with("/kernels/2/symbol", json!("moac_prefill_bf16_d64_r3_a")),
        "`kernels` is `moac_prefill_bf16_d64_r3_a` twice for sm_80, expected one kernel of a name for each \
         architecture"
    );
}

#[test]
fn check_3_values() {
    let cases = [
        ("/plan/format", json!("moac.plan/9"), "`plan.format` is `moac.plan/9`, expected `moac.plan/1`"),
        ("/plan/model/num_layers", json!(0), "`plan.model.num_layers` is 0, expected 1 to 1024"),
        (
            "/plan/model/num_layers",
            json!(4_000_000_000_u32),
            "`plan.model.num_layers` is 4000000000, expected 1 to 1024",
        ),
        ("/plan/model/num_heads", json!(513), "`plan.model.num_heads` is 513, expected 1 to 512"),
        ("/plan/model/num_kv_heads", json!(0), "`plan.model.num_kv_heads` is 0, expected 1 to 6"),
        (
            "/plan/model/num_kv_heads",
            json!(4),
            "`plan.model.num_kv_heads` is 4, expected a divisor of 6 with at most 16 query heads to a KV head",
        ),
        ("/plan/model/head_dim", json!(80), "`plan.model.head_dim` is 80, expected 64 or 128"),
        (
            "/plan/model/softmax_scale",
            json!(-1.0),
            "`plan.model.softmax_scale` is -1, expected a positive number",
        ),
        ("/plan/sink", json!(0), "`plan.sink` is 0, expected a multiple of 64 from 64 to 1048576"),
        (
            "/plan/sink",
            json!(4_294_967_232_u32),
            "`plan.sink` is 4294967232, expected a multiple of 64 from 64 to 1048576",
        ),
        ("/plan/min_span", json!(64), "`plan.min_span` is 64, expected a multiple of 64 from 128 to 1048576"),
        (
            "/plan/min_span",
            json!(129),
            "`plan.min_span` is 129, expected a multiple of 64 from 128 to 1048576",
        ),
        ("/plan/alphas", json!([]), "`plan.alphas` is 0 rows, expected 3"),
        ("/plan/betas/1", json!([1.0]), "`plan.betas[1]` is 1 numbers, expected 6"),
        (
            "/plan/alphas/2/3",
            json!(2_147_483_649_u32),
            "`plan.alphas[2][3]` is 2147483649, expected -2147483648 to 2147483648",
        ),
        ("/plan/betas/0/5", json!(-16.5), "`plan.betas[0][5]` is -16.5, expected -16 to 16"),
        ("/kv_heads/end", json!(3), "`kv_heads` is 0..3, expected a range within 0..2"),
        ("/kv_heads/start", json!(2), "`kv_heads` is 2..2, expected a range within 0..2"),
        ("/geometry/lengths", json!([]), "`geometry.lengths` is 0 buckets, expected 1 to 64"),
        (
            "/geometry/lengths/0",
            json!(100),
            "`geometry.lengths[0]` is 100, expected a multiple of 64 from 128 to 1048576",
        ),
        (
            "/geometry/lengths/1",
            json!(128),
            "`geometry.lengths[1]` is 128, expected a multiple of 64 from 129 to 1048576",
        ),
        (
            "/geometry/lengths/2",
            json!(2_097_152),
            "`geometry.lengths[2]` is 2097152, expected a multiple of 64 from 193 to 1048576",
        ),
        (
            "/archs",
            json!(["sm_90a", "sm_80"]),
            "`archs` is sm_90a, sm_80, expected at least one, each once, oldest first",
        ),
        ("/archs", json!([]), "`archs` is none, expected at least one, each once, oldest first"),
        (
            "/archs",
            json!(["sm_80"]),
            "`kernels[4].arch` is sm_90a, expected one of the artifact's architectures",
        ),
        (
            "/kernels/0/launch/threads",
            json!(33),
            "`kernels[0].launch.threads` is 33, expected whole warps, at most 1024 threads",
        ),
        (
            "/kernels/0/launch/grid/tiles/rows",
            json!(0),
            "`kernels[0].launch.grid.tiles.rows` is 0, expected 1 to 1024",
        ),
        (
            "/kernels/1/launch/grid/split/per_sm",
            json!(0),
            "`kernels[1].launch.grid.split.per_sm` is 0, expected 1 to 32",
        ),
        (
            "/kernels/0/launch/grid",
            json!({"split": {"per_sm": 1}}),
            "`kernels[0].launch.grid` is split, expected tiles",
        ),
        (
            "/kernels/1/launch/grid",
            json!({"tiles": {"rows": 64}}),
            "`kernels[1].launch.grid` is tiles, expected split",
        ),
        (
            "/kernels/0/role/attention/ring_layout",
            json!("swizzled"),
            "`kernels[0].role.attention.ring_layout` is Swizzled, expected Rows, that of the family sm80",
        ),
        (
            "/kernels/0/launch/shared_bytes",
            json!(4_294_967_295_u32),
            "`kernels[0].launch.shared_bytes` is 4294967295, expected at most 166912 bytes of shared memory on sm_80",
        ),
        ("/layers", json!([]), "`layers` is 0 layers, expected 3"),
        (
            "/kernels/8/launch/grid",
            json!({"split": {"per_sm": 1}}),
            "`kernels[8].launch.grid` is split, expected rows",
        ),
        ("/layers/0/kernels", json!({}), "`layers[0].kernels` is none, expected sm_80, sm_90a"),
        (
            "/layers/0/kernels/sm_80/decode",
            json!(8),
            "`layers[0].kernels.sm_80.decode` is 8, expected the index of a decode kernel for sm_80",
        ),
        (
            "/engine/shape/hidden",
            json!(380),
            "`engine.shape.hidden` is 380, expected a multiple of 8 from 8 to 32768",
        ),
        (
            "/engine/shape/intermediate",
            json!(0),
            "`engine.shape.intermediate` is 0, expected a multiple of 8 from 8 to 1048576",
        ),
        ("/engine/shape/vocab", json!(1_048_577), "`engine.shape.vocab` is 1048577, expected 1 to 1048576"),
        ("/engine/shape/norm_eps", json!(0.0), "`engine.shape.norm_eps` is 0, expected between 0 and 1"),
        ("/engine/shape/frequencies", json!([1.0]), "`engine.shape.frequencies` is 1 numbers, expected 32"),
        (
            "/engine/shape/frequencies/31",
            json!(-0.5),
            "`engine.shape.frequencies[31]` is -0.5, expected a positive number of at most pi",
        ),
        ("/engine/kernels", json!({}), "`engine.kernels` is none, expected sm_80, sm_90a"),
        (
            "/engine/kernels/sm_80",
            json!({"embed": 8}),
            "`engine.kernels.sm_80` is embed, expected embed, norm, rotate, activate, sample",
        ),
        (
            "/engine/kernels/sm_90a/norm",
            json!(9),
            "`engine.kernels.sm_90a.norm` is 9, expected the index of a kernel `norm` for sm_90a",
        ),
        (
            "/kernels/10/launch/grid/rows/parts",
            json!(2),
            "`kernels[10].launch` is LaunchRule { threads: 128, shared_bytes: 0, grid: Rows { parts: 2 } }, \
             expected LaunchRule { threads: 128, shared_bytes: 0, grid: Rows { parts: 1 } }",
        ),
        (
            "/layers/1/kernels/sm_80/decode",
            json!(99),
            "`layers[1].kernels.sm_80.decode` is 99, expected the index of a decode kernel for sm_80",
        ),
        (
            "/layers/1/kernels/sm_90a/prefill",
            json!(0),
            "`layers[1].kernels.sm_90a.prefill` is 0, expected the index of a prefill kernel for sm_90a",
        ),
    ];
    for (pointer, value, expected) in cases {
        assert_eq!(message_with(pointer, value), expected, "{pointer}");
    }
}

#[test]
fn check_3_symbols_cannot_leave_their_folder() {
    let mut manifest = manifest_json();
    let mut tensors = sample().1;
    manifest["kernels"][0]["symbol"] = json!("../x");
    for ending in ["cubin", "ptx", "cu"] {
        let data = tensors.remove(&format!("sm_80/moac_prefill_bf16_d64_r3_a.{ending}")).unwrap();
        tensors.insert(format!("sm_80/../x.{ending}"), data);
    }
    manifest["tensors"] =
        tensors.iter().map(|(name, data)| (name.clone(), json!(Digest::of(data)))).collect();
    assert_eq!(
        refusal(pack(&manifest.to_string(), &tensors)).to_string(),
        "`kernels[0].symbol` is `../x`, expected a C identifier of at most 200 characters"
    );
}

#[test]
fn a_hostile_manifest_costs_no_more_than_its_own_size() {
    // 1024 layers of 512 heads at 64 buckets would be two gigabytes of tables.
    let mut manifest = manifest_json();
    let row = vec![0.5; 512];
    manifest["plan"]["model"]["num_layers"] = json!(1024);
    manifest["plan"]["model"]["num_heads"] = json!(512);
    manifest["plan"]["model"]["num_kv_heads"] = json!(512);
    manifest["plan"]["alphas"] = json!(vec![row.clone(); 1024]);
    manifest["plan"]["betas"] = json!(vec![row; 1024]);
    manifest["kv_heads"]["end"] = json!(512);
    manifest["geometry"]["lengths"] = (2..66).map(|tiles| tiles * 64).collect();
    assert_eq!(
        refusal(pack(&manifest.to_string(), &sample().1)).to_string(),
        "`geometry` is 33554432 triples of layer, bucket and head, expected at most 4194304"
    );
}

#[test]
fn check_4_hashes() {
    let mut tensors = sample().1;
    let name = "sm_90a/moac_prefill_bf16_d64_r3_b.cubin";
    let whole = Digest::of(&tensors[name]);
    tensors.get_mut(name).unwrap()[5] ^= 1;
    assert_eq!(
        refusal(pack(&manifest_json().to_string(), &tensors)).to_string(),
        format!("tensor `{name}` is damaged: sha256 {}, expected {whole}", Digest::of(&tensors[name]))
    );

    // A change of the manifest that no other check could notice.
    let text = manifest_json().to_string();
    let expected = Digest::of(text.as_bytes());
    let file = pack(&text, &sample().1);
    let (at, _) =
        (0..file.len()).map(|i| (i, &file[i..])).find(|(_, rest)| rest.starts_with(b"tiny")).unwrap();
    let mut changed = file.clone();
    changed[at] = b'T';
    assert_eq!(
        refusal(changed).to_string(),
        format!(
            "the manifest is damaged: sha256 {}, expected {expected}",
            Digest::of(text.replace("tiny", "Tiny").as_bytes())
        )
    );
}

#[test]
fn check_5_recomputation() {
    let cases = [
        (
            "/plan/betas/1/2",
            json!(0.9),
            "`geometry.layers[1].rules[2]` is Rule { alpha: -128.0, beta: 0.3333333333333333 }, but the plan gives Rule { alpha: -128.0, beta: 0.9 }",
        ),
        (
            "/geometry/layers/0/group_of_head/5",
            json!(1),
            "`geometry.layers[0].group_of_head[5]` is 1, but the plan gives 0",
        ),
        (
            "/geometry/layers/0/buckets/2/span/1",
            json!(256),
            "`geometry.layers[0].buckets[2].span[1]` is 256, but the plan gives 192",
        ),
        (
            "/geometry/layers/2/buckets/2/kv_span/0",
            json!(960),
            "`geometry.layers[2].buckets[2].kv_span[0]` is 960, but the plan gives 1024",
        ),
        (
            "/geometry/layers/2/buckets/1/ring/1",
            json!(0),
            "`geometry.layers[2].buckets[1].ring[1]` is 0, but the plan gives 384",
        ),
        (
            "/geometry/layers/2/buckets/1/tile_prefix",
            json!([0, 3]),
            "`geometry.layers[2].buckets[1].tile_prefix` is 2 entries, but the plan gives 3 entries",
        ),
        (
            "/geometry/layers/2/buckets/1/length",
            json!(256),
            "`geometry.layers[2].buckets[1].length` is 256, but the plan gives 192",
        ),
        (
            "/geometry/layers/2/buckets",
            json!([]),
            "`geometry.layers[2].buckets` is 0 entries, but the plan gives 3 entries",
        ),
        ("/geometry/layers", json!([]), "`geometry.layers` is 0 entries, but the plan gives 3 entries"),
        ("/geometry/layer_base/2/0", json!(0), "`geometry.layer_base[2][0]` is 0, but the plan gives 131072"),
        ("/geometry/slab_bytes/0", json!(1), "`geometry.slab_bytes[0]` is 1, but the plan gives 196608"),
    ];
    for (pointer, value, expected) in cases {
        assert_eq!(message_with(pointer, value), expected, "{pointer}");
    }
}

#[test]
fn check_6_abi() {
    assert_eq!(
        message_with("/kernels/0/abi/version", json!(7)),
        "the kernels' ABI has version 7, expected 1: compile the plan again with this version of moac"
    );
    assert_eq!(
        message_with("/kernels/0/abi/params_bytes", json!(152)),
        "the kernels' ABI has parameter block bytes 152, expected 696: compile the plan again with this version \
         of moac"
    );
}

#[test]
fn earlier_checks_speak_first() {
    // Everything is wrong at once; mending one thing after another shows the order.
    let mut manifest = manifest_json();
    let mut tensors = sample().1;
    manifest["format"] = json!(4);
    manifest["producer"] = json!(null);
    manifest["plan"]["sink"] = json!(1);
    manifest["geometry"]["slab_bytes"][0] = json!(1);
    manifest["kernels"][0]["abi"]["version"] = json!(9);
    tensors.get_mut("headers/moac/params.cuh").unwrap()[0] = b'#';
    let first = |manifest: &Value, tensors: &BTreeMap<String, Vec<u8>>, cut: usize| {
        let mut bytes = pack(&manifest.to_string(), tensors);
        bytes.truncate(bytes.len() - cut);
        format!("{:?}", refusal(bytes)).split([' ', '{']).next().unwrap().to_owned()
    };
    let mut order = vec![first(&manifest, &tensors, 1)];
    manifest["format"] = json!(3);
    order.push(first(&manifest, &tensors, 1));
    order.push(first(&manifest, &tensors, 0));
    manifest["producer"] = manifest_json()["producer"].clone();
    order.push(first(&manifest, &tensors, 0));
    manifest["plan"]["sink"] = json!(64);
    order.push(first(&manifest, &tensors, 0));
    tensors.get_mut("headers/moac/params.cuh").unwrap()[0] = b'/';
    order.push(first(&manifest, &tensors, 0));
    manifest["geometry"]["slab_bytes"] = manifest_json()["geometry"]["slab_bytes"].clone();
    order.push(first(&manifest, &tensors, 0));
    assert_eq!(order, ["Version", "Bounds", "Schema", "Value", "Hash", "Geometry", "Abi"]);
}
