package wire

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
)

// reads is what workers read that are all of that version.
func reads(version int) func() int { return func() int { return version } }

// said is all that a payload says.
func said(t *testing.T, p *Payload) string {
	t.Helper()
	if p == nil {
		return ""
	}
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A payload is what it was when it is read again, compressed or not, and no worker gets one that is newer than it reads.
func TestCodec_roundTrip(t *testing.T) {
	t.Parallel()
	c := new(Codec)
	for version := versionFirst; version <= Newest; version++ {
		for _, size := range []int{0, 500, 9000, 300_000} {
			p := sampleMail(1, size, true)
			p.Digest, p.Deadline = "digest", new(p.DueAt.Add(time.Hour))
			data, err := c.Encode(p, reads(version))
			if err != nil {
				t.Fatal(err)
			}
			_, _, packed := cut(data)
			if want := version >= versionCompressed && size >= compressFrom; packed != want {
				t.Errorf("version %d, %d bytes: compressed = %v, want %v", version, size, packed, want)
			}
			back, err := c.Decode(data, nil)
			if err != nil || said(t, back) != said(t, p) {
				t.Errorf("version %d, %d bytes: read as %+v, %v", version, size, back, err)
			}
			meta, err := DecodeMeta(data)
			if err != nil || meta.Digest != p.Digest || meta.Generation() != p.Generation() || !meta.Deadline.Equal(*p.Deadline) {
				t.Errorf("version %d, %d bytes: its meta is %+v, %v", version, size, meta, err)
			}
			o, ok := ReadOutline(data)
			if !ok || o.Subject != p.Message.Subject || o.Body != len(p.Message.Body) {
				t.Errorf("version %d, %d bytes: its outline is %+v", version, size, o)
			}

			many := mailing(7, size)
			for i, p := range many {
				p.DueAt = p.DueAt.Add(time.Duration((i*3)%7) * time.Second)
			}
			if data, err = c.EncodeMany(many, version); err != nil {
				t.Fatal(err)
			}
			if _, _, packed := cut(data); packed != (version >= versionCompressed) || Count(data) != len(many) {
				t.Errorf("version %d, %d bytes: compressed = %v, %d messages", version, size, packed, Count(data))
			}
			if v, ok := Newer(data); ok {
				t.Errorf("version %d is newer", v)
			}
			i := 0
			for line := range Lines(data) {
				back, err := decode(line, nil)
				if err != nil || said(t, back) != said(t, many[i]) {
					t.Errorf("version %d, %d bytes, message %d: read as %+v, %v", version, size, i, back, err)
				}
				i++
			}
			if meta, err = DecodeMeta(data); err != nil || meta.Mailing != "spring" || i != len(many) {
				t.Errorf("version %d, %d bytes: %d messages, the meta of the first %+v, %v", version, size, i, meta, err)
			}
		}
	}
}

// The head of a bulk task says what holds for all its messages: it has expired when all of them have.
func TestCodec_head(t *testing.T) {
	t.Parallel()
	many := mailing(3, 1000)
	due := many[0].DueAt
	later, last := due.Add(time.Hour), due.Add(2*time.Hour)
	many[1].DueAt = later
	many[0].Deadline, many[1].Deadline, many[2].Deadline = &later, &last, &later
	for _, without := range []int{-1, 0, 2} {
		if without >= 0 {
			many = mailing(3, 1000)
			many[0].Deadline, many[1].Deadline, many[2].Deadline = &later, &last, &later
			many[without].Deadline = nil
		}
		data, err := new(Codec).EncodeMany(many, Newest)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := DecodeMeta(data)
		if err != nil || (meta.Deadline == nil) != (without >= 0) {
			t.Errorf("message %d has no deadline: %+v, %v", without, meta, err)
		}
		if without < 0 && (!meta.DueAt.Equal(later) || !meta.Deadline.Equal(last)) {
			t.Errorf("due at %v until %v, want %v and %v", meta.DueAt, meta.Deadline, later, last)
		}
	}
}

// A worker of the time before compression sees that a compressed task is of a newer version by its first line, and so leaves it to others.
func TestCodec_olderWorkers(t *testing.T) {
	t.Parallel()
	one, err := new(Codec).Encode(sampleMail(1, 9000, false), reads(Newest))
	if err != nil {
		t.Fatal(err)
	}
	many, err := new(Codec).EncodeMany(mailing(100, 1000), Newest)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{one, many} {
		line, _, _ := bytes.Cut(data, []byte("\n"))
		var head struct {
			Version int `json:"version"`
		}
		if err := json.Unmarshal(line, &head); err != nil || head.Version != versionCompressed {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, newer := range []string{`{"version":4,"message":{}}`, `{"version":9,"messages":2,"message":null}` + "\n(\xb5/\xfd", `{"version":1,"message":{}}` + "\n" + `{"version":12,"message":{}}`} {
		if v, ok := Newer([]byte(newer)); !ok || v < 4 {
			t.Errorf("%q is of version %d, %v", newer, v, ok)
		}
	}
}

// What programs of this version have written is read for ever. zstd may compress it otherwise one day, so it is not compared.
func TestCodec_golden(t *testing.T) {
	t.Parallel()
	plain, tagged := goldenPayloads()["plain"], goldenPayloads()["tagged"]
	for name, want := range map[string][]*Payload{"one": {plain}, "many": {plain, tagged, plain}} {
		file := filepath.Join("testdata", "payload-v3-"+name+".bin")
		if *update {
			c := &Codec{always: true}
			data, err := c.EncodeMany(want, Newest)
			if name == "one" {
				long := *plain.Message
				long.Body = strings.Repeat(long.Body, 20)
				data, err = c.Encode(&Payload{plain.Meta, &long, nil}, reads(Newest))
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, packed := cut(data); !packed {
			t.Fatalf("%s is not compressed", file)
		}
		i := 0
		for line := range Lines(data) {
			got, err := decode(line, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Mailing != want[i].Mailing || !slices.Equal(got.Tags, want[i].Tags) || !got.DueAt.Equal(want[i].DueAt) || got.Message.MessageID != want[i].Message.MessageID {
				t.Errorf("%s, message %d is read as %+v", name, i, got)
			}
			i++
		}
		if i != len(want) {
			t.Errorf("%s has %d messages, want %d", name, i, len(want))
		}
	}
}

// bomb is a small frame that is many zeros. It says so, or not.
func bomb(t testing.TB, size int, says bool) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, size)
	if says {
		return e.EncodeAll(zeros, nil)
	}
	var b bytes.Buffer
	e.Reset(&b)
	for some := range slices.Chunk(zeros, 1<<20) {
		if _, err := e.Write(some); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const firstLine = `{"version":3,"due_at":"2026-01-02T03:04:05Z","messages":1,"message":null}` + "\n"

// A frame is decompressed up to the limit: whatever it says of its size, and however many come one after the other.
func TestCodec_bomb(t *testing.T) { // not parallel: it measures what the whole process allocates
	small, lying := bomb(t, 1000, true), bomb(t, 4<<20, true)
	for name, frame := range map[string][]byte{
		"more than the limit":              bomb(t, MaxUnpacked+1, true),
		"more than the limit, and unsaid":  bomb(t, 4*MaxUnpacked, false),
		"many frames":                      bytes.Repeat(bomb(t, 1<<20, true), 100),
		"behind one that is small":         append(bytes.Clone(small), lying...),
		"cut off":                          lying[:len(lying)-5],
		"no frame but its magic number":    magic,
		"damaged":                          append(bytes.Clone(small[:len(small)-1]), 'x'),
		"something behind it":              append(bytes.Clone(small), "more"...),
		"a frame that readers are to skip": append(bytes.Clone(small), 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0, 'x'),
	} {
		t.Run(name, func(t *testing.T) {
			data := append([]byte(firstLine), frame...)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := new(Codec).Decode(data, nil)
			runtime.ReadMemStats(&after)
			if err == nil {
				t.Error("it was read")
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 2*MaxUnpacked {
				t.Errorf("%d bytes were allocated", grown)
			}
		})
	}
	data := append([]byte(firstLine), bomb(t, MaxUnpacked, true)...)
	if got, err := new(Codec).Unpack(data); err != nil || len(got) != MaxUnpacked {
		t.Errorf("%d bytes, %v, want as many as there may be", len(got), err)
	}
}

// What is too big to be read compressed is not compressed.
func TestCodec_tooBig(t *testing.T) {
	t.Parallel()
	p := sampleMail(1, 0, false)
	p.Message.Body = strings.Repeat("0123456789abcdef", MaxUnpacked/16+1)
	c := new(Codec)
	data, err := c.Encode(p, reads(Newest))
	if err != nil {
		t.Fatal(err)
	}
	if back, err := c.Decode(data, nil); err != nil || back.Message.Body != p.Message.Body || Size(data) != len(data) {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// Messages are not in the memory that they were read from, nor in that of the codec: who decodes the next task may use it anew.
func TestCodec_reuse(t *testing.T) {
	t.Parallel()
	c := new(Codec)
	var want, got []*Payload
	for round := range 3 {
		list := mailing(20, 500*round)
		data, err := c.EncodeMany(list, Newest)
		if err != nil {
			t.Fatal(err)
		}
		kept := bytes.Clone(data)
		if _, err := c.EncodeMany(mailing(50, 900), Newest); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, kept) {
			t.Error("the next task was written over the one before")
		}
		for line := range c.Lines(data) {
			p, err := decode(line, nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, p)
			clear(line) // as the next task does
		}
		want = append(want, list...)
	}
	for i := range want {
		if said(t, got[i]) != said(t, want[i]) {
			t.Fatalf("message %d has changed", i)
		}
	}
}

// Whatever is in Redis, a reader does not panic, and has no more of it in memory than the limit.
func FuzzCodec_read(f *testing.F) {
	one, err := (&Codec{always: true}).Encode(sampleMail(1, 300, true), reads(Newest))
	if err != nil {
		f.Fatal(err)
	}
	many, err := new(Codec).EncodeMany(mailing(5, 300), Newest)
	if err != nil {
		f.Fatal(err)
	}
	for _, data := range [][]byte{one, many, []byte(firstLine), append([]byte(firstLine), bomb(f, 1<<17, true)...), []byte(`{"version":1,"message":{}}`)} {
		f.Add(data)
	}
	c := new(Codec)
	f.Fuzz(func(t *testing.T, data []byte) {
		if plain, err := c.Unpack(data); err == nil && len(plain) > max(MaxUnpacked, len(data)) {
			t.Errorf("%d bytes of %d", len(plain), len(data))
		}
		Size(data)
		Count(data)
		Newer(data)
		_, _ = c.Decode(data, nil)
		for line := range c.Lines(data) {
			_, _ = decode(line, nil)
			ReadOutline(line)
		}
	})
}

// Whatever a mail says, it says the same when it was compressed.
func FuzzCodec_roundTrip(f *testing.F) {
	f.Add("subject", "body", "ann@example.com", "spring", 3)
	f.Add("\n", "{\"version\":1,\"message\":", "\x00", "a\nb", 1)
	c := &Codec{always: true}
	f.Fuzz(func(t *testing.T, subject, body, to, mailing string, n int) {
		if !utf8.ValidString(mailing) {
			return // no program gives one such a name
		}
		var list []*Payload
		for i := range min(max(n, 1), 20) {
			p := sampleMail(i, 0, false)
			p.Message.Subject, p.Message.Body, p.Message.To, p.Mailing = subject, body, []string{to}, mailing
			list = append(list, p)
		}
		one, err := c.Encode(list[0], reads(Newest))
		if err != nil {
			return // it is no text
		}
		back, err := c.Decode(one, nil)
		if err != nil || said(t, back) != said(t, list[0]) {
			t.Fatalf("%+v, %v, want %+v", back, err, list[0])
		}
		many, err := c.EncodeMany(list, Newest)
		if err != nil {
			t.Fatal(err)
		}
		i := 0
		for line := range c.Lines(many) {
			back, err := decode(line, nil)
			if err != nil || said(t, back) != said(t, list[i]) {
				t.Fatalf("%+v, %v, want %+v", back, err, list[i])
			}
			i++
		}
		if i != len(list) {
			t.Fatalf("%d messages, want %d", i, len(list))
		}
	})
}
