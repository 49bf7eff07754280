package testserver

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMaildir(t *testing.T) {
	d := Maildir{Dir: t.TempDir(), Fields: []string{"Return-Path", "Delivered-To", "Received"}}
	if all, err := d.Messages(); len(all) != 0 || err != nil {
		t.Errorf("no directory yet: got %v, %v", all, err)
	}
	if err := os.Mkdir(filepath.Join(d.Dir, "new"), 0o700); err != nil {
		t.Fatal(err)
	}
	deliver := func(name, text string, age time.Duration) {
		t.Helper()
		path := filepath.Join(d.Dir, "new", name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	// The message of its own begins with a field that the server adds too.
	deliver("a", "Return-Path: <>\nDelivered-To: y@x.example\nReceived: by us\n\tfor you\nReceived: mine\n\nline\n", 0)
	deliver("b", "Return-Path: <a@x.example>\nDelivered-To: b@x.example\nReceived: by us\n", time.Hour)
	all, err := d.Messages()
	if err != nil {
		t.Fatal(err)
	}
	const want = `[{"a@x.example" "b@x.example" "by us" "" ""} {"" "y@x.example" "by us\n\tfor you" "" "Received: mine\r\n\r\nline\r\n"}]`
	if got := fmt.Sprintf("%q", all); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if n, err := d.Count(); n != 2 || err != nil {
		t.Errorf("count = %d, %v", n, err)
	}
	deliver("c", "Delivered-To: y@x.example\n", 0)
	if all, err := d.Messages(); err == nil {
		t.Errorf("a message without the server's fields: got %q", all)
	}
}
