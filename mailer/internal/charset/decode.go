package charset

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
)

// Decode reads a text that is in the charset of that name. It reads it as browsers do, for whom some
// names mean more than what [Charset] writes under them. ok is false if nobody knows the name, if
// ASCII does not stand for itself in the charset, or if s is not in it.
func Decode(name, s string) (text string, ok bool) {
	enc := readable(name)
	if enc == nil {
		return "", false
	}
	text, err := enc.NewDecoder().String(s)
	return text, err == nil && !strings.ContainsRune(text, utf8.RuneError)
}

// NewReader reads a text in the charset of that name, as Decode does. It is for a mime.WordDecoder.
func NewReader(name string, r io.Reader) (io.Reader, error) {
	enc := readable(name)
	if enc == nil {
		return nil, fmt.Errorf("charset: nobody knows %.40q", name)
	}
	return enc.NewDecoder().Reader(r), nil
}

func readable(name string) encoding.Encoding {
	name = strings.ToLower(strings.Trim(name, " \t"))
	for _, n := range []string{name, registeredName(name)} {
		enc, err := htmlindex.Get(n)
		if err != nil {
			enc, err = ianaindex.MIME.Encoding(n)
		}
		if err != nil || enc == nil {
			continue
		}
		const probe = "a~\\"
		if got, err := enc.NewDecoder().String(probe); err == nil && got == probe {
			return enc
		}
	}
	return nil
}

// Latin1 reads what is in no charset that anybody names: as Latin-1, with the quotes and dashes that
// Windows has where Latin-1 has control characters.
func Latin1(s string) string {
	text, _ := charmap.Windows1252.NewDecoder().String(s) // it knows each byte
	return text
}
