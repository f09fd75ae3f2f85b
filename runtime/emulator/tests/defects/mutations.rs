//! Bad text: whatever becomes of a kernel's text, the emulator answers with an error or a report, never with a panic.

use moac_emulator::{Launch, Memory, Module, launch};
use proptest::prelude::*;

/// A little of everything.
const TEXT: &str = ".version 9.0 .target sm_90a .address_size 64
.const .align 4 .b8 table[8] = {1, 0, 0, 0, 2};
.global .align 8 .u64 pointer[2] = {generic(counter), 0};
.global .u32 counter = 40;
.extern .shared .align 16 .b8 dynamic[];
.func (.param .b32 r) twice(.param .b32 n) { .reg .b32 %r<4>; ld.param.b32 %r1, [n]; shl.b32 %r2, %r1, 1; st.param.b32 [r], %r2; ret; }
.visible .entry k(.param .u64 data, .param .align 8 .b8 block[16]) .maxntid 64, 1, 1
{ .reg .b16 %h<9>; .reg .b32 %r<30>; .reg .f32 %f<9>; .reg .f64 %fd<3>; .reg .b64 %rd<20>; .reg .pred %p<9>; .shared .align 128 .b8 s[2048]; .local .align 8 .b8 depot[16];
ld.param.u64 %rd1, [data]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 16; add.s64 %rd3, %rd1, %rd2; mad.lo.u32 %r3, %r1, 16, 1024;
cp.async.cg.shared.global.L2::128B [%r3], [%rd3], 16; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0;
ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd3]; ld.shared.v2.u32 {%r4, %r5}, [%r3+8]; fma.rn.f32 %f5, %f1, %f2, %f3; ex2.approx.ftz.f32 %f6, %f5; cvt.rn.bf16x2.f32 %r6, %f5, %f6;
ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r7, %r8, %r9, %r10}, [%r3]; mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r7,%r8,%r9,%r10}, {%r7,%r8}, {%f1,%f2,%f3,%f4};
shfl.sync.bfly.b32 %r11|%p1, %r6, 1, 0x1f, -1; setp.lt.s32 %p2|%p3, %r1, 5; @%p2 bra LOW; mov.u32 %r12, 1; bra.uni JOIN; LOW: mov.b64 {%r12, %r13}, %rd3; JOIN:
st.local.u32 [depot+4], %r12; ld.local.u32 %r14, [depot+4]; bfe.u32 %r15, %r14, 3, 5; bfi.b32 %r15, %r14, %r15, 4, 8; prmt.b32 %r16, %r14, %r15, 0x5410; lop3.b32 %r16, %r14, %r15, %r16, 0x96;
{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call.uni (b), twice, (a); ld.param.b32 %r17, [b]; }
tab: .branchtargets A, B; and.b32 %r18, %r1, 1; brx.idx %r18, tab; A: add.s32 %r19, %r18, 7; B: vote.sync.ballot.b32 %r20, %p2, -1;
atom.global.add.u32 %r21, [counter], 1; membar.gl; red.shared.max.s32 [s+1024], %r1; cvt.rzi.s32.f32 %r22, %f5; cvt.f64.f32 %fd1, %f5; selp.b32 %r23, %r22, %r21, %p3;
ld.const.u32 %r24, [table+4]; st.global.v2.u32 [%rd3], {%r23, %r24}; bar.warp.sync -1; ret; }";

fn survive(text: &str) {
    let Ok(module) = Module::parse(text) else { return };
    for kernel in module.kernels() {
        let mut memory = Memory::new();
        let data = memory.alloc_filled("data", 2048, 1);
        let mut l = Launch::new(kernel.name.clone(), 2, 64).dynamic_shared(64);
        l.params = data.to_le_bytes().to_vec();
        l.params.resize(kernel.param_bytes as usize, 0);
        l.max_instructions = 2000;
        // A fault or a report; both are answers.
        let _ = launch(&module, &mut memory, &l);
    }
}

#[test]
fn the_text_itself_is_sound() {
    assert!(Module::parse(TEXT).is_ok(), "{:?}", Module::parse(TEXT).err());
    survive(TEXT);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Words dropped, doubled, exchanged or replaced by numbers.
    #[test]
    fn words_go_astray(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5u8, any::<i64>()), 1..4)) {
        let mut words: Vec<String> = Vec::new();
        let mut word = String::new();
        for c in TEXT.chars() {
            if c.is_ascii_alphanumeric() || "_%.:".contains(c) {
                word.push(c);
            } else {
                words.push(std::mem::take(&mut word));
                words.push(c.to_string());
            }
        }
        for (i, j, how, number) in edits {
            let (i, j) = (i.index(words.len()), j.index(words.len()));
            match how {
                0 => words[i].clear(),
                1 => words[i] = words[j].clone(),
                2 => words.swap(i, j),
                3 => words[i] = number.to_string(),
                _ => words[i] = (number % 70).to_string(),
            }
        }
        survive(&words.concat());
    }
}
