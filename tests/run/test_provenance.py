"""The commit that a run records is that of the code."""

import subprocess

from gradcam_bench.run.provenance import commit


def git(folder, *words):
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_a_commit_is_dirty_where_code_is_changed_and_not_where_results_are(tmp_path):
    assert commit(tmp_path) is None
    (tmp_path / "results").mkdir()
    code, result = tmp_path / "code.py", tmp_path / "results" / "summary.csv"
    code.write_text("a = 1")
    result.write_text("1")
    git(tmp_path, "init")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-m", "first")
    clean = commit(tmp_path)
    assert len(clean) == 12
    result.write_text("2")
    (tmp_path / "new.py").write_text("")
    assert commit(tmp_path) == clean
    code.write_text("a = 2")
    assert commit(tmp_path) == f"{clean}-dirty"
