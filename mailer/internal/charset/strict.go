package charset

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// The encoders of golang.org/x/text are made for browsers (WHATWG): under some names they write
// characters that the charset of that name does not have, for example the circled digits of
// Windows under the name of ISO-2022-JP, or write them with a code that has always meant another
// one. A browser reads them; mail programs, Python and iconv do not. A strictness says which
// codes these are.
type strictness struct {
	scan    func(b []byte, good func(row, cell byte) bool) bool // over the double-byte characters of b
	refused []area
	runes   *unicode.RangeTable // characters that are refused, where that is shorter to say; or nil

	controls string // control characters that are refused
}

// area is the codes with a first byte from rows[0] to rows[1] and a second one from cells[0] to
// cells[1]. It is 8-bit bytes also where a charset writes them in seven bits.
type area struct{ rows, cells [2]byte }

// jisX0208 is what Windows has beside JIS X 0208, or reads otherwise: ‖ ∥ − － 〜 ～ ¢ ￠ £ ￡ ¬ ￢,
// the row of NEC, and the rows of IBM.
var jisX0208 = []area{
	{[2]byte{0xa1, 0xa1}, [2]byte{0xc1, 0xc2}},
	{[2]byte{0xa1, 0xa1}, [2]byte{0xdd, 0xdd}},
	{[2]byte{0xa1, 0xa1}, [2]byte{0xf1, 0xf2}},
	{[2]byte{0xa2, 0xa2}, [2]byte{0xcc, 0xcc}},
	{[2]byte{0xad, 0xad}, [2]byte{0xa1, 0xfe}},
	{[2]byte{0xf5, 0xfe}, [2]byte{0xa1, 0xfe}},
}

// strict returns the strictness of the charset of that name, or nil if all is well with it.
func strict(name string) *strictness {
	switch strings.ToLower(name) {
	case "iso-2022-jp":
		return &strictness{scan: scanISO2022JP, refused: jisX0208, controls: "\x0e\x0f\x1b"} // they switch between sets
	case "euc-jp":
		return &strictness{scan: scanPairs, refused: jisX0208}
	case "shift_jis":
		return &strictness{scan: scanShiftJIS, refused: []area{ // the same as jisX0208, in other codes
			{[2]byte{0x81, 0x81}, [2]byte{0x60, 0x61}},
			{[2]byte{0x81, 0x81}, [2]byte{0x7c, 0x7c}},
			{[2]byte{0x81, 0x81}, [2]byte{0x91, 0x92}},
			{[2]byte{0x81, 0x81}, [2]byte{0xca, 0xca}},
			{[2]byte{0x87, 0x87}, [2]byte{0x40, 0x9e}},
			{[2]byte{0xeb, 0xfc}, [2]byte{0x40, 0xfc}},
		}}
	case "euc-kr": // KS X 1001 has codes of two high bytes, all others are of Windows-949
		return &strictness{scan: scanPairs, refused: []area{
			{[2]byte{0x80, 0xa0}, [2]byte{0x00, 0xff}},
			{[2]byte{0x80, 0xff}, [2]byte{0x00, 0xa0}},
			{[2]byte{0xa4, 0xa4}, [2]byte{0xd4, 0xd4}}, // the filler, which begins a syllable of four codes
		}}
	case "gbk":
		return &strictness{scan: scanPairs, refused: []area{
			{[2]byte{0x80, 0x80}, [2]byte{0x00, 0xff}}, // the euro of Windows-936, a single byte
			{[2]byte{0xa8, 0xa8}, [2]byte{0xbf, 0xbf}},
			{[2]byte{0xa9, 0xa9}, [2]byte{0x89, 0x95}},
			{[2]byte{0xfe, 0xfe}, [2]byte{0x50, 0x9f}},
		}}
	case "big5": // the extensions of Hong Kong and of ETEN, and a few signs that others read otherwise
		return &strictness{scan: scanPairs, refused: []area{
			{[2]byte{0x80, 0xa0}, [2]byte{0x00, 0xff}},
			{[2]byte{0xa1, 0xa1}, [2]byte{0x45, 0x45}},
			{[2]byte{0xa1, 0xa1}, [2]byte{0x4e, 0x4e}},
			{[2]byte{0xa1, 0xa1}, [2]byte{0xc2, 0xc2}},
			{[2]byte{0xa1, 0xa1}, [2]byte{0xe3, 0xe3}},
			{[2]byte{0xa1, 0xa1}, [2]byte{0xf2, 0xf3}},
			{[2]byte{0xa2, 0xa2}, [2]byte{0x41, 0x42}},
			{[2]byte{0xa2, 0xa2}, [2]byte{0x44, 0x44}},
			{[2]byte{0xa2, 0xa2}, [2]byte{0x46, 0x47}},
			{[2]byte{0xa3, 0xa3}, [2]byte{0xc0, 0xe1}},
			{[2]byte{0xc6, 0xc6}, [2]byte{0xa1, 0xfe}},
			{[2]byte{0xc7, 0xc8}, [2]byte{0x40, 0xfe}},
			{[2]byte{0xf9, 0xf9}, [2]byte{0xd6, 0xfe}},
			{[2]byte{0xfa, 0xff}, [2]byte{0x00, 0xff}},
		}}
	case "gb18030": // its editions of 2000, 2005 and 2022 differ in these
		return &strictness{runes: &unicode.RangeTable{R16: []unicode.Range16{
			{Lo: 0x1e3f, Hi: 0x1e3f, Stride: 1}, {Lo: 0x9fb4, Hi: 0x9fbb, Stride: 1}, {Lo: 0xe000, Hi: 0xf8ff, Stride: 1}, {Lo: 0xfe10, Hi: 0xfe19, Stride: 1},
		}}}
	case "koi8-u": // Ў and ў are of KOI8-RU
		return &strictness{runes: &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x40e, Hi: 0x40e, Stride: 1}, {Lo: 0x45e, Hi: 0x45e, Stride: 1}}}}
	case "windows-1255": // a vowel point that Microsoft has not
		return &strictness{runes: &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x5ba, Hi: 0x5ba, Stride: 1}}}}
	case "macintosh": // ∆, and Apple's own sign, which iconv reads as others
		return &strictness{runes: &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x2206, Hi: 0x2206, Stride: 1}, {Lo: 0xf8ff, Hi: 0xf8ff, Stride: 1}}}}
	}
	return nil
}

// allows reports whether s, which the encoder made b of, is in the charset. A nil strictness
// allows everything.
func (s *strictness) allows(text string, b []byte) bool {
	switch {
	case s == nil:
		return true
	case s.runes != nil:
		return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf && unicode.Is(s.runes, r) })
	}
	return !strings.ContainsAny(text, s.controls) && s.scan(b, func(row, cell byte) bool {
		for _, a := range s.refused {
			if a.rows[0] <= row && row <= a.rows[1] && a.cells[0] <= cell && cell <= a.cells[1] {
				return false
			}
		}
		return true
	})
}

// scanPairs is for charsets where a high byte begins a character of two bytes. (EUC-JP has
// characters of three, which x/text does not write. Its half-width katakana, of 0x8e and another
// byte, are good.)
func scanPairs(b []byte, good func(row, cell byte) bool) bool {
	for i := 0; i < len(b); i++ {
		if b[i] < utf8.RuneSelf {
			continue
		}
		row, cell := b[i], byte(0)
		if i++; i < len(b) {
			cell = b[i]
		}
		if !good(row, cell) {
			return false
		}
	}
	return true
}

// scanShiftJIS steps over half-width katakana, which are single bytes.
func scanShiftJIS(b []byte, good func(row, cell byte) bool) bool {
	for i := 0; i+1 < len(b); i++ {
		if b[i] < utf8.RuneSelf || 0xa1 <= b[i] && b[i] <= 0xdf {
			continue
		}
		if !good(b[i], b[i+1]) {
			return false
		}
		i++
	}
	return true
}

// scanISO2022JP refuses half-width katakana, which ISO-2022-JP for mail (RFC 1468) does not have.
func scanISO2022JP(b []byte, good func(row, cell byte) bool) bool {
	double := false
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == 0x1b && i+2 < len(b): // ESC ( B, ESC ( J or ESC $ B
			if b[i+1] == '(' && b[i+2] == 'I' {
				return false
			}
			double = b[i+1] == '$'
			i += 2
		case double && i+1 < len(b):
			if !good(b[i]|0x80, b[i+1]|0x80) {
				return false
			}
			i++
		}
	}
	return true
}
