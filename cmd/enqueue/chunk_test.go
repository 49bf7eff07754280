package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// lines reads all lines of an input in chunks, as "number text".
func lines(t *testing.T, r io.Reader, most int) (all []string, err error) {
	t.Helper()
	c := newChunker(r, most, nil)
	for index := 0; ; index++ {
		next, err := c.next()
		if next.index != index || len(next.lines) > most || err == nil && len(next.lines) == 0 {
			t.Fatalf("chunk %d: index %d, %d lines", index, next.index, len(next.lines))
		}
		size := 0
		for _, l := range next.lines {
			all = append(all, fmt.Sprintf("%d %s", l.n, l.text))
			size += len(l.text)
		}
		if size != next.size {
			t.Errorf("chunk %d: %d bytes, want %d", index, next.size, size)
		}
		if err != nil {
			return all, err
		}
	}
}

// However an input arrives, its lines are whole and have their numbers.
func TestChunker(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var text strings.Builder
	var want []string
	for n := 1; n <= 3000; n++ {
		line := strings.Repeat(string(rune('a'+n%26)), 1+random.IntN(3000))
		switch {
		case n == 700:
			line = strings.Repeat("b", 3*chunkBytes)
		case n%50 == 0:
			line = strings.Repeat(" ", n%3)
		}
		end := "\n"
		if n%7 == 0 {
			end = "\r\n"
		}
		if n == 3000 {
			line, end = "the last one has no end", ""
		}
		text.WriteString(line + end)
		if strings.TrimSpace(line) != "" {
			want = append(want, fmt.Sprintf("%d %s", n, line+end))
		}
	}
	for name, reader := range map[string]func(io.Reader) io.Reader{
		"whole":                func(r io.Reader) io.Reader { return r },
		"in pieces":            func(r io.Reader) io.Reader { return pieces{r, random} },
		"with its end":         iotest.DataErrReader,
		"half of it at a time": iotest.HalfReader,
	} {
		for _, most := range []int{1, maxKeyedLines, maxLines} {
			got, err := lines(t, reader(strings.NewReader(text.String())), most)
			if !errors.Is(err, io.EOF) || len(got) != len(want) {
				t.Fatalf("%s, %d: %d lines, %v, want %d", name, most, len(got), err, len(want))
			}
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("%s, %d: line %d is %.60q, want %.60q", name, most, i, got[i], want[i])
				}
			}
		}
	}
}

// pieces is a reader that gives some bytes at a time, and sometimes none.
type pieces struct {
	io.Reader

	random *rand.Rand
}

func (p pieces) Read(into []byte) (int, error) {
	return p.Reader.Read(into[:p.random.IntN(len(into)+1)])
}

// A line that has come is not kept back until the next one has, and an input that breaks says where; half a line is none.
func TestChunker_pipe(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	c := newChunker(r, maxLines, nil)
	for i := range 3 {
		go func() { _, _ = fmt.Fprintf(w, "one %d\ntwo %d\nthr", i, i) }()
		next, err := c.next()
		if err != nil || len(next.lines) != 2 || !bytes.HasSuffix(next.lines[0].text, fmt.Appendf(nil, "one %d\n", i)) {
			t.Fatalf("%+v, %v", next, err)
		}
	}
	_ = w.CloseWithError(io.ErrUnexpectedEOF)
	if next, err := c.next(); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.HasPrefix(err.Error(), "line 7: ") || len(next.lines) > 0 {
		t.Errorf("%+v, %v", next, err)
	}
}
