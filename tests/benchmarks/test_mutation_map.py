"""Tests of slips are run in an order in which what differs comes first."""

from mutation_map import TracedFile, TracedTest, TracedTests, digest, runs_when_called

TESTS = {
    "tests/test_far.py": {"a[1]": 0.1, "a[2]": 0.2, "b": 0.5, "slow": 9.0},
    "tests/test_other.py": {"c": 0.3, "elsewhere": 0.01},
    "tests/test_code.py": {"near": 0.4, "near_but_slow": 7.0},
}


def the_map(tmp_path):
    (tmp_path / "code.py").write_text("x = 1\n")
    files = {
        file: TracedFile(
            "",
            {
                f"{file}::{name}": TracedTest(
                    seconds, {"code.py": [9] if name == "elsewhere" else [2, 3]}
                )
                for name, seconds in tests.items()
            },
        )
        for file, tests in TESTS.items()
    }
    return TracedTests(tmp_path / "map.json", files, {"code.py": digest(tmp_path / "code.py")})


def ordered(found, tmp_path, lines):
    tests = found.ordered(tmp_path, list(TESTS), "code.py", lines)
    return [test.partition("::")[2] for test in tests]


def test_the_nearest_come_first_and_others_take_turns(tmp_path):
    found = the_map(tmp_path)
    expected = ["near", "a[1]", "a[2]", "c", "b", "near_but_slow", "slow"]
    assert ordered(found, tmp_path, range(3, 5)) == expected
    assert ordered(found, tmp_path, range(9, 10)) == ["elsewhere"]


def test_where_lines_tell_nothing_all_tests_of_the_file_run(tmp_path):
    found = the_map(tmp_path)
    assert len(ordered(found, tmp_path, range(100, 101))) == 8
    (tmp_path / "code.py").write_text("y = 1\n")
    assert len(ordered(found, tmp_path, range(9, 10))) == 8
    (tmp_path / "constants.py").write_text("y = 1\n")
    assert len(found.ordered(tmp_path, list(TESTS), "constants.py", range(0))) == 8


def test_lines_that_run_when_a_function_is_called():
    text = "x = 1\n\n\ndef f(y=2):\n    z = [\n        y\n    ]\n    return z\n\n\nw = 3\n"
    called = [line for line in range(1, 12) if runs_when_called(text, line)]
    assert called == [5, 6, 7, 8]


def test_a_map_is_kept(tmp_path):
    found = the_map(tmp_path)
    found.write()
    assert TracedTests.read(found.path) == found
    assert TracedTests.read(tmp_path / "none.json").files == {}
