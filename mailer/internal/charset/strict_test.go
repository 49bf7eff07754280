package charset

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/japanese"
	"golang.org/x/text/encoding/korean"
	"golang.org/x/text/encoding/simplifiedchinese"
	"golang.org/x/text/encoding/traditionalchinese"
)

var update = flag.Bool("update", false, "write testdata/strict.txt anew, with python3")

const golden = "testdata/strict.txt"

// allCharsets are those that Lookup can return, but for UTF-8, by their names.
func allCharsets(t *testing.T) map[string]Charset {
	t.Helper()
	all := map[string]Charset{}
	for _, list := range [][]encoding.Encoding{charmap.All, japanese.All, korean.All, simplifiedchinese.All, traditionalchinese.All} {
		for _, enc := range list {
			for _, index := range []*ianaindex.Index{ianaindex.MIME, ianaindex.IANA} {
				name, err := index.Name(enc)
				if err != nil {
					continue
				}
				if cs, ok := Lookup(name); ok && !cs.IsUTF8() {
					all[cs.Name] = cs
				}
			}
		}
	}
	if cs, ok := Lookup("x-mac-cyrillic"); ok {
		all[cs.Name] = cs
	}
	if len(all) < 45 {
		t.Fatalf("got %d charsets", len(all))
	}
	return all
}

// characters calls f for every character of the Basic Multilingual Plane that cs writes, with a line of
// charset, character and bytes.
func characters(cs Charset, f func(line string)) {
	for r := range rune(0x10000) {
		if !utf8.ValidRune(r) {
			continue
		}
		if used, b := cs.OrUTF8(string(r), ""); !used.IsUTF8() {
			f(fmt.Sprintf("%s %x %x\n", cs.Name, r, b))
		}
	}
}

// TestStrict: of all characters each charset writes those, and only those, that Python reads back
// under the same name. All others go out in UTF-8.
func TestStrict(t *testing.T) {
	if *update {
		if err := os.WriteFile(golden, judge(t), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		want[name] = rest
	}
	all := allCharsets(t)
	if len(all) != len(want) {
		t.Errorf("got %d charsets, want %d", len(all), len(want))
	}
	for name, cs := range all {
		count, sum := 0, sha256.New()
		characters(cs, func(line string) {
			count++
			sum.Write([]byte(line))
		})
		if got := fmt.Sprintf("%d %s", count, hex.EncodeToString(sum.Sum(nil))); got != want[name] {
			t.Errorf("%s: writes other characters than Python reads: got %s, want %s", name, got, want[name])
		}
	}
}

// TestStrict_golden: the file that TestStrict goes by is what this machine's Python says.
func TestStrict_golden(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("needs python3: apt-get install python3")
		}
		t.Skip("needs python3: apt-get install python3")
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := judge(t); !bytes.Equal(got, want) {
		t.Errorf("Python says\n%s, want\n%s", got, want)
	}
}

// judge lets Python read what the encoders write without our strictness.
func judge(t *testing.T) []byte {
	t.Helper()
	var lines bytes.Buffer
	all := allCharsets(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		cs := all[name]
		cs.strict = nil
		characters(cs, func(line string) { lines.WriteString(line) })
	}
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/strict.py")
	cmd.Stdin, cmd.Stderr = &lines, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLookup(t *testing.T) {
	tests := []struct {
		name string
		want string // "" if it is not known
	}{
		{"", "utf-8"}, {"utf8", "utf-8"}, {"latin-1", "ISO-8859-1"}, {"cp1252", "windows-1252"},
		{"gb2312", "GBK"}, {"ks_c_5601-1987", "EUC-KR"}, {"windows-31j", "Shift_JIS"},
		{"hz-gb-2312", "utf-8"}, {"utf-16", "utf-8"}, {"x-user-defined", "utf-8"}, {"klingon", ""},
	}
	for _, tt := range tests {
		if cs, ok := Lookup(tt.name); cs.Name != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: got %q, %v, want %q", tt.name, cs.Name, ok, tt.want)
		}
	}
}

// What comes out of texts is what comes out of their characters: the scanners stay in step.
func TestStrict_text(t *testing.T) {
	tests := []struct {
		charset, text string
		good          bool
	}{
		{"iso-2022-jp", "a\u65e5\u672cb\\\u8a9e\r\nx~y\u3042", true},
		{"iso-2022-jp", "\u65e5\u672c\u2460", false}, // the circled digit one
		{"iso-2022-jp", "\u3231\u65e5", false},       // the sign of a stock company
		{"iso-2022-jp", "a\u9ad9", false},            // a variant of "high", in names
		{"iso-2022-jp", "\uff76", false},             // half-width katakana
		{"iso-2022-jp", "a\x1b$B", false},            // what switches to another set
		{"shift_jis", "\uff76\u65e5a\u8868\\\uff71\uff72\uff73\u65e5", true},
		{"shift_jis", "\uff76\u65e5a\u2460", false},
		{"shift_jis", "\uff76\u9ad9a\u3042", false},
		{"euc-jp", "\uff76\u65e5a\u672c", true},
		{"euc-jp", "\uff76a\u2460", false},
		{"euc-kr", "a\ud55c\uad6d", true},
		{"euc-kr", "a\ud55c\ubdc1", false}, // a syllable of Windows-949 alone
		{"gbk", "a\u4e2d\u6587a", true},
		{"gbk", "a\u4e2d\u20ac", false},
		{"big5", "a\u4e2d\u6587\u529f", true},
		{"big5", "a\u4e2d\u55fa", true},
		{"big5", "a\u4e2d\u3042", false}, // hiragana, which ETEN added
		{"gb18030", "a\u20ac\u4e2d\U0001f600", true},
		{"gb18030", "a\ue000", false},
		{"windows-1252", "\u20ac\u201e", true},
	}
	for _, tt := range tests {
		cs, ok := Lookup(tt.charset)
		if !ok {
			t.Fatal(tt.charset)
		}
		if used, _ := cs.OrUTF8(tt.text, ""); used.IsUTF8() == tt.good {
			t.Errorf("%s: %q goes out in %s", tt.charset, tt.text, used.Name)
		}
	}
}

// RFC 1468 wants header words of ISO-2022-JP in B.
func TestWords_iso2022jp(t *testing.T) {
	cs, _ := Lookup("iso-2022-jp")
	for _, text := range []string{"\u65e5", "\u65e5 and much more text in ASCII behind it", strings.Repeat("x", 600)} {
		words, rest := NewWords(cs, text, false).Next(nil, text, MaxWord)
		if !bytes.HasPrefix(words, []byte("=?ISO-2022-JP?b?")) || rest == text {
			t.Errorf("%q: got %s", text, words)
		}
	}
}
