"""What is no GGUF file ends in one sentence. A real one is converted by hand: its packages are not in the environment."""

import zipfile

import pytest

from tasks.models import gguf


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("model.whl", {"package/model.py": b""}, "holds no GGUF file"), ("model.whl", {"model.gguf": b"none"}, "cannot be read")],
)
def test_what_is_no_gguf_file(name, content, says, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        for inside, data in content.items():
            wheel.writestr(inside, data)
    monkeypatch.setattr("sys.argv", ["gguf", str(tmp_path / name), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=says) as refusal:
        gguf.main()
    assert len(str(refusal.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()
