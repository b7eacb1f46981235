#!/usr/bin/env bash
# The whole sentence study of docs/study.md: its data, its grids one after the other, its tables and figures.
#
#   bash scripts/study.sh                 into runs/study and assets/results; DALR_DATA names the data
#   bash scripts/study.sh --dry-run       check every cell and print its command
#   bash scripts/study.sh --help          other options go to scripts/run_study.py, such as --finished
#
# Start it again after whatever stopped it: finished cells are kept, and a killed one goes on. DALR_PYTHON names an
# interpreter that already has the packages; then no environment is made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
  sed -n '2,9s/^# \{0,1\}//p' scripts/study.sh
  exit 0
fi
if [ -z "${DALR_DATA:-}" ]; then
  echo "error: set DALR_DATA to the folder of flickr8k/, wikinews/, fashion/, models/, sts/ and transfer/" >&2
  exit 2
fi

source scripts/environment.sh
prepare_python run

case " $* " in *" --dry-run "*) dry=1 ;; *) dry= ;; esac
if [ -z "$dry" ] && [ ! -f runs/study/data/corpus.txt ]; then
  "$PYTHON" scripts/make_study_data.py --data "$DALR_DATA" --out runs/study/data
fi
# weak_teacher learns from encoders that sentences has trained, and so comes after it.
for study in tuning sentences weak_teacher ablation ideas forgetting graded; do
  echo "— $study"
  "$PYTHON" scripts/run_study.py "configs/study/$study.yaml" --out "runs/study/$study" \
    --json "assets/results/study_$study.json" "$@"
done
if [ -z "$dry" ]; then
  "$PYTHON" scripts/draw_study.py assets/results/study_sentences.json --out assets/study --terms dalr
fi
