#!/usr/bin/env bash
# From a fresh machine with Python 3.11+ to a trained model and a page that shows what it does, in two steps:
# install (once), then the demo catalogue: check, train, evaluate, embed, search, audit, report.
#
#   bash scripts/quickstart.sh            into the folder quickstart/
#   bash scripts/quickstart.sh FOLDER     into another folder; what follows it overrides configs/demo.yaml
#   bash scripts/quickstart.sh --help
#
# A second run reuses the environment and the trained model. DALR_PYTHON names an interpreter that already has the
# packages; then no environment is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  sed -n '2,10s/^# \{0,1\}//p' scripts/quickstart.sh
  exit 0
fi

out=${1:-quickstart}
overrides=("${@:2}")
catalogue=assets/demo/products.csv
source scripts/environment.sh
prepare_python run

# What is embedded once is kept beside the model, not in the user's own cache.
mkdir -p "$out"
export DALR_CACHE=${DALR_CACHE:-$(cd "$out" && pwd)/cache}
dalr() { "$PYTHON" -m dalr "$@"; }
started=$SECONDS
step() {
  echo
  echo "— $* (after $((SECONDS - started)) s)"
}

step "1 of 7: check the catalogue"
dalr check "$catalogue"

step "2 of 7: train both encoders from nothing"
dalr train configs/demo.yaml ${overrides[@]+"${overrides[@]}"} --out "$out/model"

step "3 of 7: evaluate on products that training never saw"
dalr eval retrieval --model "$out/model" --data "$catalogue" --split test

step "4 of 7: embed the catalogue for search"
dalr embed --model "$out/model" --data "$catalogue" --out "$out/store"

step "5 of 7: search"
echo 'dalr search --store '"$out"'/store -k 5 "red striped mug"'
dalr search --store "$out/store" -k 5 "red striped mug"

step "6 of 7: audit the catalogue; 152 of its captions were swapped on purpose"
dalr audit --model "$out/model" --data "$catalogue" --crossfit 3 --truth assets/demo/truth.csv --out "$out/audit"

step "7 of 7: write the report"
dalr report --run "$out/model" --data "$catalogue" --audit "$out/audit" --title "The demo catalogue" --out "$out/report"

echo
echo "done in $((SECONDS - started)) s. Open this in a browser:"
echo "  $(cd "$out" && pwd)/report/index.html"
