"""Patients' names in many scripts: how files write them, and what people type.

`NAMES` is for tests of decoding, folding and searching.  Each name stands once per
character set that can write it; `typed` finds it, `other` must not.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.factory import encoded, instance


@dataclass(frozen=True)
class Name:
    """A name (PN), the Specific Character Set of its file, and words for a search."""

    script: str
    character_set: str
    text: str
    typed: tuple[str, ...]
    other: tuple[str, ...] = ()
    description: str = "Abdomen"

    def file(self, patient: int, *, claimed: str | None = None) -> bytes:
        """Return an object of this patient, its text in this character set.

        It may *claim* another one (of no more letters).
        """
        character_set, name = self.character_set, self.text
        if character_set == "ISO_IR 203":  # which pydicom does not know
            character_set, claimed = "ISO_IR 100", claimed or "ISO_IR 203"
            name = name.encode("iso8859_15").decode("latin_1")
        terms = character_set.split("\\")
        ds = instance(
            patient,
            SpecificCharacterSet=terms if len(terms) > 1 else terms[0],
            PatientName=name,
            PatientID=f"{self.script}-{patient}",
            StudyDescription=self.description,
        )
        true = character_set.encode()
        said = true if claimed is None else claimed.encode().ljust(len(true))
        return encoded(ds).replace(true, said, 1)


_YAMADA = (
    "山田", "太郎", "山田太郎", "山田^太郎", "太郎 山田", "太郎　山田", "やまだ", "ヤマダ", "ﾔﾏﾀﾞ",
    "やまた\u3099", "やまだたろう", "yamada", "TAROU YAMADA", "Yamada^Tarou", "ｙａｍａｄａ",
    "Yamada^Tarou=山田^太郎",
)  # fmt: skip
_HONG = (
    "洪",
    "吉洞",
    "홍",
    "길동",
    "홍길동",
    "길동 홍",
    "\u1112\u1169\u11bc",
    "hong",
    "Gildong Hong",
)
_WANG = ("王", "小东", "王小东", "王 小东", "小东^王", "wang", "XIAODONG", "ＷＡＮＧ")

NAMES = (
    Name("kanji", r"\ISO 2022 IR 87", "Yamada^Tarou=山田^太郎=やまだ^たろう", _YAMADA,
         ("田山", "maeda", "まえだ")),
    Name("katakana", r"ISO 2022 IR 13\ISO 2022 IR 87", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", _YAMADA),
    Name("japanese", "ISO_IR 192", "Yamada^Tarou=山田^太郎=ヤマダ^タロウ", _YAMADA),
    Name("half-width", "ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", ("ﾔﾏﾀﾞ", "やまだ", "ヤマダタロウ", "yamada tarou")),
    # Every one of these holds a byte 0x5C, which alone would be a backslash.
    Name("kanji-5c", r"\ISO 2022 IR 87", "Yamamoto^Kei=山本^慶", ("山本", "山本慶", "kei yamamoto"),
         description="本院"),
    Name("gbk-5c", "GBK", "Wang^Cheng=王^誠", ("王誠", "誠", "wang cheng"), description="誠實"),
    Name("gb18030-5c", "GB18030", "Wang^Cheng=王^誠", ("王誠", "誠", "wang cheng"),
         description="誠實"),
    Name("hangul", r"\ISO 2022 IR 149", "Hong^Gildong=洪^吉洞=홍^길동", _HONG, ("김",)),
    Name("korean", "ISO_IR 192", "Hong^Gildong=洪^吉洞=홍^길동", _HONG),
    Name("chinese", "GB18030", "Wang^XiaoDong=王^小东", _WANG, ("望",)),
    Name("gbk", "GBK", "Wang^XiaoDong=王^小东", _WANG),
    Name("gb2312", r"\ISO 2022 IR 58", "Wang^XiaoDong=王^小东", _WANG),
    # Folded, this sign is the middle of "Oliver": only itself may find it.
    Name("one-sign", "ISO_IR 192", "李^娜", ("李", "李娜", "娜 李", "li na"), ("里",)),
    Name("oliver", "ISO_IR 192", "Oliver^Elisa", ("oliver",), ("李",)),
    Name("cyrillic", "ISO_IR 144", "Семёнов^Андрей",
         ("Семёнов", "СЕМЕНОВ", "семе\u0308нов", "андрей семёнов", "semenov", "Semyonov",
          "andrey")),
    Name("greek", "ISO_IR 126", "Διονύσιος^Αναγνώστου",
         ("Διονύσιος", "ΔΙΟΝΥΣΙΟΣ", "διονυσιος", "διονυσιοσ", "Διονυ\u0301σιος", "dionysios",
          "αναγνωστου διονυσιος")),
    Name("arabic", "ISO_IR 127", "قباني^أحمد", ("قباني", "أحمد", "احمد", "أحمد قباني", "qbny")),
    Name("hebrew", "ISO_IR 138", "שרון^דבורה", ("שרון", "דבורה", "דבורה שרון", "srvn")),
    Name("thai", "ISO_IR 166", "วรรณา^ทองดี", ("วรรณา", "ทองดี", "วรรณาทองดี", "thongdi", "wrrna")),
    Name("latin-1", "ISO_IR 100", "Müller^Jürgen",
         ("müller", "MÜLLER", "mu\u0308ller", "muller", "mueller", "Juergen^Mueller")),
    Name("danish", "ISO_IR 100", "Ægirsson^Søren Åse",
         ("Ægirsson", "ægirsson", "aegirsson", "Søren", "SOEREN", "soren", "Åse", "aase", "ase")),
    Name("german", "ISO_IR 100", "Weiß^Anna Maria",
         ("weiß", "WEISS", "weiss", "WEIẞ", "maria anna weiß", "Weiß^Anna Maria")),
    Name("german-ascii", "ISO_IR 6", "Mueller^Joerg", ("Müller", "jörg müller", "MUELLER")),
    Name("latin-2", "ISO_IR 101", "Kovačević^Łukasz",
         ("kovačević", "kovacevic", "łukasz", "lukasz")),
    Name("latin-3", "ISO_IR 109", "Ĉapek^Ġorġ", ("ĉapek", "capek", "ġorġ", "gorg")),
    Name("latin-4", "ISO_IR 110", "Bērziņš^Jānis", ("bērziņš", "berzins", "JĀNIS", "janis")),
    Name("turkish", "ISO_IR 148", "Işık^İnci", ("Işık", "IŞIK", "ışık", "isik", "inci", "İNCİ")),
    Name("latin-9", "ISO_IR 203", "Œuvré^Šárka", ("œuvré", "oeuvre", "šárka", "SARKA")),
    Name("irish", "ISO_IR 6", "O'Brien^Seán".replace("á", "a"), ("O'Brien", "o’brien", "sean")),
    Name("maeda", "ISO_IR 192", "Maeda^Jun", ("maeda",), ("yamada",)),
)  # fmt: skip
