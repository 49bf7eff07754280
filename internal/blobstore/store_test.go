package blobstore

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// What is not there is stored once, and is not asked for again.
func TestStore_Hold(t *testing.T) {
	t.Parallel()
	s, client := newStore(t)
	content := brochure(1)
	hold(t, s, "a#1", content)
	err := s.Hold(t.Context(), "b#1", []Content{{blobOf(content), func() []byte {
		t.Error("the content is asked for though it is there")
		return content
	}}})
	if err != nil {
		t.Fatal(err)
	}
	wantRefs(t, client, content, 2)
	if head, err := s.Head(t.Context(), Hash(content), 100); err != nil || !bytes.Equal(head, content[:100]) {
		t.Errorf("its head is %d bytes, %v", len(head), err)
	}
	if err := s.Drop(t.Context(), "a#1", []string{Hash(content)}); err != nil {
		t.Fatal(err)
	}
	wantRefs(t, client, content, 1)
	if err := s.Drop(t.Context(), "b#1", []string{Hash(content)}); err != nil {
		t.Fatal(err)
	}
	wantRefs(t, client, content, 0)
	hold(t, s, "c#1", content) // before it has expired
	wantRefs(t, client, content, 1)
}

// What is lost is told apart from what is there.
func TestStore_faults(t *testing.T) {
	t.Parallel()
	s, client := newStore(t)
	there, damaged, gone := brochure(1), brochure(2), brochure(3)
	hold(t, s, "a#1", there, damaged, gone)
	client.SetRange(t.Context(), blobKey(Hash(damaged)), 7, "other")
	client.Del(t.Context(), blobKey(Hash(gone)))
	contents, faults, err := s.Read(t.Context(), []Blob{blobOf(there), blobOf(damaged), blobOf(gone)})
	if err != nil || !bytes.Equal(contents[0], there) || faults[0] != nil {
		t.Errorf("what is there: %d bytes, %v, %v", len(contents[0]), faults[0], err)
	}
	for i, want := range []string{1: "damaged in Redis", 2: "not in Redis any more"} {
		if want != "" && (contents[i] != nil || faults[i] == nil || !strings.HasSuffix(faults[i].Error(), want)) {
			t.Errorf("%d bytes, %v; want %s", len(contents[i]), faults[i], want)
		}
	}
	var fault *FaultError
	if _, err := s.Get(t.Context(), blobOf(gone)); !errors.As(err, &fault) || fault.Blob != blobOf(gone) {
		t.Errorf("Get: %v", err)
	}
	if err := s.Hold(t.Context(), "b#1", []Content{{blobOf(gone), func() []byte { return nil }}}); !errors.As(err, &fault) {
		t.Errorf("Hold: %v", err)
	}
}
