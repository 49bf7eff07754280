package adminlog

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	"github.com/rs/zerolog"
)

// maxLine is how many bytes of a line are kept. Stack traces are seldom longer.
const maxLine = 32 << 10

// line is one line of the log.
type line struct {
	level zerolog.Level
	text  string
	ours  bool // it may be caused by sending the last mail, and so causes no mail
}

// newLine copies p, which zerolog uses again.
func newLine(level zerolog.Level, p []byte, ours bool) line {
	p = bytes.TrimRight(p, "\r\n")
	return line{level: level, text: string(p[:min(len(p), maxLine)]), ours: ours}
}

// less reports whether l is less important than other.
func (l line) less(other line) bool {
	if l.ours != other.ours {
		return l.ours
	}
	return l.level < other.level
}

// field is one field of a line.
type field struct {
	key   string
	value any // as encoding/json decodes it, with json.Number
}

// decode returns the fields of a line, sorted by key. It is whole if the line is a JSON
// object and nothing else; of any other the fields at its beginning are returned. A
// key that is there twice, as zerolog allows, stays so.
func decode(text string) (fields []field, whole bool) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, false
	}
	for d.More() {
		t, err := d.Token()
		key, ok := t.(string)
		if err != nil || !ok {
			break
		}
		f := field{key: key}
		if d.Decode(&f.value) != nil {
			break
		}
		fields = append(fields, f)
	}
	slices.SortStableFunc(fields, func(a, b field) int { return strings.Compare(a.key, b.key) })
	t, err := d.Token()
	return fields, err == nil && t == json.Delim('}') && strings.TrimSpace(text[d.InputOffset():]) == ""
}

// levelOf finds the level in a line: zerolog.NoLevel if there is none.
func levelOf(p []byte) zerolog.Level {
	fields, _ := decode(string(p))
	name, _ := find(fields, zerolog.LevelFieldName)
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		return zerolog.NoLevel
	}
	return level
}

// find returns the text of the first field with that key, if it is one.
func find(fields []field, key string) (text string, ok bool) {
	for _, f := range fields {
		if s, isText := f.value.(string); isText && f.key == key {
			return s, true
		}
	}
	return "", false
}
