from pathlib import Path

from sims.phrase_book import MAX_LINES, Line, PhraseBook


def test_lines_survive_a_run_once_each_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "phrases.jsonl"
    book = PhraseBook(path)
    for text in ("Hello.", "Goodbye.", "Hello."):
        book.add(Line(text, "voice-1"))
    assert PhraseBook(path).catch_up() == (Line("Hello.", "voice-1"), Line("Goodbye.", "voice-1"))


def test_what_another_process_writes_is_read_once(tmp_path: Path) -> None:
    book, other = PhraseBook(tmp_path / "book"), PhraseBook(tmp_path / "book")
    book.add(Line("Hello.", "v"))
    other.add(Line("Goodbye.", "v"))
    assert book.catch_up() == (Line("Goodbye.", "v"),)
    assert book.catch_up() == ()
    assert other.catch_up() == (Line("Hello.", "v"),)
    assert book.lines == (Line("Hello.", "v"), Line("Goodbye.", "v"))


def test_a_full_book_keeps_the_first_lines(tmp_path: Path) -> None:
    book = PhraseBook(tmp_path / "book")
    for number in range(MAX_LINES + 5):
        book.add(Line(str(number), "v"))
    assert len(book.lines) == len(PhraseBook(tmp_path / "book").catch_up()) == MAX_LINES


def test_a_bad_file_is_an_empty_book(tmp_path: Path) -> None:
    path = tmp_path / "book"
    path.write_bytes(b'{"text": "half')
    assert PhraseBook(path).catch_up() == ()
    path.write_bytes(b'{"surprise": 1}\n')
    assert PhraseBook(path).catch_up() == ()
