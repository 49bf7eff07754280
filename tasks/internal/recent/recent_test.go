package recent

import (
	"fmt"
	"hash/maphash"
	"maps"
	"strings"
	"testing"
)

func TestTexts(t *testing.T) {
	t.Parallel()
	const most = 5000
	texts := New(most)
	if _, ok := texts.Get("nobody"); ok || len(texts.places) != 0 {
		t.Error("there is something at first")
	}
	wanted := func(i int) (name, text string) {
		return fmt.Sprint("task ", i), strings.Repeat("x", i%300) + fmt.Sprint(i)
	}
	const n = 4*most + 10
	for i := range n {
		name, text := wanted(i)
		texts.Put(name, "older")
		texts.Put(name, text)
		if got, ok := texts.Get(name); got != text || !ok {
			t.Fatalf("%s is %q, %v", name, got, ok)
		}
	}
	if l := len(texts.places); l < most/2 || l > most/2+pageSize { // each was put twice
		t.Errorf("%d are kept", l)
	}
	for i := range n {
		name, text := wanted(i)
		got, ok := texts.Get(name)
		if ok && got != text || i >= n-most/2 && !ok || i < n-most/2-pageSize && ok {
			t.Fatalf("%d: %q, %v", i, got, ok)
		}
	}
	all, before := texts.All(), len(texts.places)
	for i := range 2 * most {
		texts.Put(fmt.Sprint("later ", i), "")
	}
	if _, ok := texts.Get("later 0"); ok {
		t.Error("a later one is kept for too long")
	}
	found := maps.Collect(all)
	if len(found) != before {
		t.Errorf("%d of one moment, want %d", len(found), before)
	}
	for i := n - most/2; i < n; i++ {
		if name, text := wanted(i); found[name] != text {
			t.Fatalf("%s was %q", name, found[name])
		}
	}
	for range all {
		break
	}
}

// A text that was put again lives on when the page of the first one goes.
func TestTexts_again(t *testing.T) {
	t.Parallel()
	texts := New(2 * pageSize)
	texts.Put("it", "old")
	for i := range 3 * pageSize {
		if i == pageSize {
			texts.Put("it", "new")
		}
		texts.Put(fmt.Sprint(i), "")
	}
	if got, ok := texts.Get("it"); got != "new" || !ok {
		t.Errorf("%q, %v", got, ok)
	}
}

// Two names with one hash are two names.
func TestTexts_collision(t *testing.T) {
	t.Parallel()
	texts := New(10)
	texts.Put("one", "1")
	one := texts.places[maphash.String(texts.seed, "one")]
	texts.Put("other", "2")
	texts.places[maphash.String(texts.seed, "other")] = one
	if text, ok := texts.Get("other"); ok {
		t.Errorf("other is %q, which is one's", text)
	}
}

// Nothing is kept for each text but its bytes, so that there is little for the garbage collector.
func TestTexts_allocations(t *testing.T) { //nolint:paralleltest // it counts allocations
	texts := New(10_000)
	names := make([]string, 20_000)
	for i := range names {
		names[i] = fmt.Sprint("asynq:{default}:t:", i)
	}
	fill := func() {
		for _, name := range names {
			texts.Put(name, `{"reply":"250 2.0.0 Ok: queued as 4C1D"}`)
		}
	}
	fill()
	if n := testing.AllocsPerRun(3, fill); n > 100 {
		t.Errorf("%v allocations for %d texts", n, len(names))
	}
}

// Long texts are gone with their page.
func TestTexts_long(t *testing.T) {
	t.Parallel()
	texts := New(2 * pageSize)
	texts.Put("long", strings.Repeat("x", 10<<20))
	for i := range 10 * pageSize {
		texts.Put(fmt.Sprint(i), "short")
	}
	kept := 0
	for _, p := range texts.pages {
		kept += cap(p.bytes)
	}
	if kept > 1<<20 {
		t.Errorf("%d bytes are kept for %d short texts", kept, len(texts.places))
	}
}
