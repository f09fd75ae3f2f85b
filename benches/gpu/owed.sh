#!/usr/bin/env bash
# Makes the runs that OWED.md lists, on a machine with a GPU, a driver, torch and NVRTC, and nothing to build with.
# usage: benches/gpu/owed.sh MOAC PLANS OUT
#   MOAC   the moac binary (cargo build --release -p moac)
#   PLANS  a folder with the published plans llama-3-8b.moa.json and vicuna-7b.moa.json
#   OUT    where logs, artifacts and results go
set -uo pipefail
moac=$1 plans=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
failures=0
step() { # name, command...
  local name=$1
  shift
  local start=$SECONDS
  if "$@" >"$out/$name.log" 2>&1; then verdict=ok; else verdict="FAILED ($?)"; failures=$((failures + 1)); fi
  echo "$name: $verdict, $((SECONDS - start)) s"
  tail -n 4 "$out/$name.log" | sed 's/^/    /'
}
archs=(--arch sm_90 --arch sm_90a)
"$moac" doctor | tee "$out/doctor.log"
# Correctness first: everything small, then the published plans.
for dtype in bf16 f16; do
  step "verify-shipped-$dtype" "$moac" verify "$here"/../../plans/{llama-3-8b,vicuna-7b,smollm2-135m,dense,one-rule-per-head}.json \
    --dtype $dtype "${archs[@]}" --record "$out/ledger.json"
  step "verify-llama-$dtype" "$moac" verify "$plans/llama-3-8b.moa.json" -m llama-3-8b --dtype $dtype "${archs[@]}"
  step "verify-vicuna-$dtype" "$moac" verify "$plans/vicuna-7b.moa.json" -m vicuna-7b --dtype $dtype "${archs[@]}"
done
small=(verify "$here/../../plans/smollm2-135m.json" --lengths 512 --arch sm_90a)
for tool in memcheck racecheck; do
  step "sanitizer-$tool" compute-sanitizer --tool $tool --error-exitcode 1 "$moac" "${small[@]}"
done
step compile "$moac" compile "$plans/llama-3-8b.moa.json" -m llama-3-8b --arch sm_90a -o "$out/llama.moac"
step load env MOAC_LOG=moac_runtime=debug "$moac" bench "$out/llama.moac" --batch 1 --context 1024
step exec-vs-torch python3 "$here/exec_vs_torch.py" "$moac" "$out/llama.moac"
# Then speed, beside the peers in one run.
step peers python3 "$here/peers.py" "$moac" "$out/llama.moac" "$out/peers.json"
echo "$failures failed"
exit $((failures > 0))
