#!/usr/bin/env bash
# Makes the runs whose results stand in benches/NOTES.md, on a machine with a GPU, a driver, torch and NVRTC, and nothing
# to build with; `beside_fa3.py` stands beside it.
# usage: benches/gpu/all.sh MOAC PLANS OUT [PART...]
#   MOAC   the moac binary (cargo build --release -p moac)
#   PLANS  a folder with the published plans llama-3-8b.moa.json and vicuna-7b.moa.json
#   OUT    where logs, artifacts and results go
#   PART   shipped, speed, torch, sanitizer, bytes, emulator, published; all of them in this order if none is named
set -uo pipefail
moac=$1 plans=$2 out=$3
shift 3
parts=("$@")
[ $# -eq 0 ] && parts=(shipped speed torch sanitizer bytes emulator published)
here=$(cd "$(dirname "$0")" && pwd)
shipped=("$here"/../../plans/{llama-3-8b,vicuna-7b,odd-heads,smollm2-135m-0.5,smollm2-135m-0.25,smollm2-135m-0.125,dense,one-rule-per-head}.json)
archs=(--arch sm_90 --arch sm_90a)
mkdir -p "$out"
failures=0
step() { # name, lines to show, command...
  local name=$1 lines=$2
  shift 2
  local start=$SECONDS
  if "$@" >"$out/$name.log" 2>&1; then verdict=ok; else verdict="FAILED ($?)"; failures=$((failures + 1)); fi
  echo "$name: $verdict, $((SECONDS - start)) s"
  tail -n "$lines" "$out/$name.log" | sed 's/^/    /'
}
llama() { # compiles what is timed and compared, once
  [ -f "$out/llama.moac" ] ||
    step compile 1 "$moac" compile "$plans/llama-3-8b.moa.json" -m llama-3-8b --arch sm_90a -o "$out/llama.moac"
}
part_shipped() {
  for dtype in bf16 f16; do
    step "verify-shipped-$dtype" 1 "$moac" verify "${shipped[@]}" --dtype $dtype "${archs[@]}" --record "$out/ledger.json"
  done
}
part_speed() {
  llama
  step load 12 env MOAC_LOG=moac_runtime=debug "$moac" bench "$out/llama.moac" --batch 1 --context 1024
  step peers 12 python3 "$here/peers.py" "$moac" "$out/llama.moac" "$out/peers.json"
}
part_torch() {
  llama
  for dtype in bf16 f16; do
    local artifact=$out/llama.moac
    if [ $dtype = f16 ]; then
      artifact=$out/llama-f16.moac
      "$moac" compile "$plans/llama-3-8b.moa.json" -m llama-3-8b --arch sm_90a --dtype f16 -o "$artifact"
    fi
    step "exec-vs-torch-$dtype" 12 python3 "$here/exec_vs_torch.py" "$moac" "$artifact"
  done
}
part_sanitizer() {
  for tool in memcheck racecheck; do
    step "sanitizer-$tool" 2 compute-sanitizer --tool $tool --error-exitcode 1 \
      "$moac" verify "$here/../../plans/odd-heads.json" --lengths 512 --arch sm_90a
  done
}
part_bytes() {
  llama
  step bytes 6 python3 "$here/bytes.py" "$moac" "$out/llama.moac"
}
part_emulator() { # the plans side by side, for most of the time is the emulator's
  local plan job jobs=()
  for plan in "${shipped[@]}"; do
    against_emulator "$plan" &
    jobs+=($!)
  done
  for job in "${jobs[@]}"; do wait "$job" || failures=$((failures + 1)); done
}
against_emulator() { # PLAN; in a shell of its own
  local name
  name=$(basename "$1" .json)
  failures=0
  "$moac" compile "$1" --arch sm_90a --lengths 1024 -o "$out/$name.moac" 2>/dev/null
  step "emulator-$name" 3 python3 "$here/exec_vs_torch.py" "$moac" "$out/$name.moac" \
    --device gpu --device emulator --tokens 300 --distinct
  return $failures
}
part_published() {
  for dtype in bf16 f16; do
    for plan in llama-3-8b vicuna-7b; do
      step "verify-$plan-$dtype" 1 "$moac" verify "$plans/$plan.moa.json" -m $plan --dtype $dtype "${archs[@]}"
    done
  done
}
"$moac" doctor | tee "$out/doctor.log"
for part in "${parts[@]}"; do "part_$part"; done
echo "$failures failed"
exit $((failures > 0))
