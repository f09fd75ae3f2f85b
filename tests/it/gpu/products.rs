//! The GPU operations that the engine needs besides attention: matrix products, and tables uploaded and downloaded.

use moac_runtime::element::{f32_from_bytes, from_bytes, to_bytes};
use moac_runtime::glue::uniform;
use moac_runtime::gpu::blas::{Product, Products, ResultType};
use moac_runtime::gpu::{Buffer, Device, Downloads, GpuError, Stream, Uploads};
use moac_runtime::plan::DType;

use super::device;

/// Values between -1 and 1 of `dtype`, on the device and as they are there.
fn random(device: &Device, stream: &Stream, dtype: DType, count: u32, seed: u64) -> (Buffer, Vec<f32>) {
    let values = (0..count).map(|at| 2.0 * uniform(seed, at) - 1.0);
    let bytes = to_bytes(dtype, values);
    let mut buffer = device.alloc(bytes.len() as u64, "a matrix").unwrap();
    buffer.upload(stream, &bytes).unwrap();
    (buffer, from_bytes(dtype, &bytes))
}

/// Odd shapes, both element types, both results, with and without a sum, launched, tuned and in a graph, against float64.
#[test]
#[ignore = "needs a GPU and cuBLASLt"]
fn a_product_agrees_with_float64() {
    let device = device();
    let stream = device.new_stream().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut products = Products::new(&device, Some(folder.path())).unwrap().expect("cuBLASLt");
    let mut seed = 0;
    for [rows, out, inner] in [[1, 64, 128], [3, 960, 576], [8, 72, 4096], [65, 1536, 576], [1, 128, 14336]] {
        for (dtype, result, add) in [
            (DType::Bf16, ResultType::Elements, true),
            (DType::F16, ResultType::Elements, false),
            (DType::Bf16, ResultType::F32, false),
        ] {
            let product = Product { rows, out, inner, dtype, result, add };
            let mut next = |count| {
                seed += 1;
                random(&device, &stream, dtype, count, seed)
            };
            let ((x, x_values), (w, w_values)) = (next(rows * inner), next(out * inner));
            let (mut y, y_values) = match result {
                ResultType::Elements => next(rows * out),
                ResultType::F32 => (device.alloc(product.bytes()[2], "y").unwrap(), Vec::new()),
            };
            let before = {
                let mut bytes = vec![0; y.bytes() as usize];
                y.download(&stream, &mut bytes).unwrap();
                bytes
            };
            let expected: Vec<f64> = (0..rows as usize * out as usize)
                .map(|at| {
                    let (row, column, inner) = (at / out as usize, at % out as usize, inner as usize);
                    let x = &x_values[row * inner..][..inner];
                    let w = &w_values[column * inner..][..inner];
                    let sum: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    sum + if add { f64::from(y_values[at]) } else { 0.0 }
                })
                .collect();
            let check = |y: &Buffer, how: &str| {
                let mut bytes = vec![0; y.bytes() as usize];
                y.download(&stream, &mut bytes).unwrap();
                let found = match result {
                    ResultType::Elements => from_bytes(dtype, &bytes),
                    ResultType::F32 => f32_from_bytes(&bytes),
                };
                let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
                let off = norm(&mut found.iter().zip(&expected).map(|(&y, e)| f64::from(y) - e))
                    / norm(&mut expected.iter().copied());
                let most = match (result, dtype) {
                    (ResultType::F32, _) => 1e-5,
                    // The library may round a product before it adds.
                    (_, DType::Bf16) => 5e-3,
                    (_, DType::F16) => 1e-3,
                };
                assert!(off < most, "{product:?}, {how}: off by {off:e}");
            };
            products.run(&stream, &product, &x, &w, &mut y).unwrap();
            check(&y, "launched");
            products.tune(&stream, &product, &x, &[&w, &w], &mut y).unwrap();
            y.upload(&stream, &before).unwrap();
            let graph = stream.capture(|| products.run(&stream, &product, &x, &w, &mut y)).unwrap();
            graph.launch().unwrap();
            check(&y, "tuned, in a graph");
            let small = Product { rows: rows + 1, ..product };
            let error = products.run(&stream, &small, &x, &w, &mut y).unwrap_err();
            assert!(matches!(error, GpuError::Range { .. }), "{error}");
        }
    }
    products.save();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the file of algorithms");
}

/// More turns than there are places, in both directions, and a pattern that does not divide what it fills.
#[test]
#[ignore = "needs a GPU"]
fn tables_go_there_and_come_back_in_order() {
    let device = device();
    let stream = device.new_stream().unwrap();
    let mut uploads = Uploads::new(&device, 64, 3).unwrap();
    let mut downloads = Downloads::new(&device, 64, 4).unwrap();
    let buffer = device.alloc(64, "a table").unwrap();
    let mut seen = Vec::new();
    for turn in 0..20_u8 {
        uploads.send(&stream, buffer.all(), &[turn; 40]).unwrap();
        downloads.ask(&stream, buffer.part(0..40).unwrap()).unwrap();
        if turn % 4 == 3 {
            assert!(matches!(
                downloads.ask(&stream, buffer.part(0..40).unwrap()),
                Err(GpuError::Unread { turns: 4 })
            ));
            while let Some(table) = downloads.take().unwrap() {
                seen.push(table.to_vec());
            }
        }
    }
    assert_eq!(seen, (0..20).map(|turn| vec![turn; 40]).collect::<Vec<_>>());
    assert!(matches!(uploads.send(&stream, buffer.all(), &[0; 65]), Err(GpuError::Range { .. })));

    let mut pattern = device.alloc(7, "a pattern").unwrap();
    pattern.upload(&stream, &[0, 1, 2, 3, 4, 5, 6]).unwrap();
    buffer.all().repeat(&stream, pattern.part(2..7).unwrap()).unwrap();
    let mut bytes = [0; 64];
    buffer.download(&stream, &mut bytes).unwrap();
    assert_eq!(bytes, std::array::from_fn(|at| 2 + (at % 5) as u8));
    buffer.part(60..64).unwrap().fill(&stream, 9).unwrap();
    buffer.download(&stream, &mut bytes).unwrap();
    // 58 % 5 is 3.
    assert_eq!(bytes[58..], [5, 6, 9, 9, 9, 9]);
}
