package filebased

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/mailer/mailertest"
)

var separator = []byte("\n" + strings.Repeat("-", 79) + "\n")

func TestConformance(t *testing.T) {
	t.Parallel()
	mailertest.Run(t, func(t *testing.T) mailertest.Harness {
		t.Parallel()
		dir := t.TempDir()
		b := newBackend(t, dir)
		return mailertest.Harness{
			Backend:    b,
			NoEnvelope: true,
			Text:       true,
			Received: func() []mailertest.Mail {
				var mails []mailertest.Mail
				for _, entry := range entries(t, dir) {
					mails = append(mails, mailertest.Mail{Data: entry})
				}
				return mails
			},
			Connections: func() int { return len(files(t, dir)) },
			Break: func() {
				if err := b.file.Close(); err != nil {
					t.Fatal(err)
				}
			},
			Down: func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			},
		}
	})
}

func newBackend(t *testing.T, dir string) *Backend {
	t.Helper()
	b, err := New(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// files returns the paths of all files in dir, the oldest first.
func files(t *testing.T, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, entry := range list {
		paths = append(paths, filepath.Join(dir, entry.Name()))
	}
	return paths
}

// entries returns the messages in all files.
func entries(t *testing.T, dir string) [][]byte {
	t.Helper()
	var all [][]byte
	for _, path := range files(t, dir) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		parts := bytes.Split(content, separator)
		last := len(parts) - 1
		if len(parts[last]) > 0 {
			t.Errorf("%s: something without a separator at the end: %q", path, parts[last])
		}
		all = append(all, parts[:last]...)
	}
	return all
}

func message(subject string) *mailer.EmailMessage {
	return &mailer.EmailMessage{Subject: subject, FromEmail: "from@example.com", To: []string{"to@example.org"}, Bcc: []string{"bcc@example.org"}}
}

func TestNew(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		dir   func(t *testing.T) string
		fails bool
		want  error // what the error wraps, beside an fs.PathError
	}{
		{"there already", func(t *testing.T) string { return t.TempDir() }, false, nil},
		{"created with parents", func(t *testing.T) string { return filepath.Join(t.TempDir(), "a", "b", "c") }, false, nil},
		{"a file", fileInTheWay, true, syscall.ENOTDIR},
		{"below a file", func(t *testing.T) string { return filepath.Join(fileInTheWay(t), "sub") }, true, syscall.ENOTDIR},
		{"not writable", unwritable, true, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := tt.dir(t)
			b, err := New(Config{Dir: dir})
			if !tt.fails {
				if err != nil {
					t.Fatal(err)
				}
				if left := files(t, dir); len(left) > 0 {
					t.Errorf("New left %q", left)
				}
				return
			}
			var path *fs.PathError
			if b != nil || !errors.As(err, &path) || !strings.HasPrefix(err.Error(), "filebased: directory "+dir+": ") {
				t.Fatalf("%v, %v; want an error that names %s and wraps an fs.PathError", b, err, dir)
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("%v; want %v", err, tt.want)
			}
		})
	}
}

// fileInTheWay is the path of a file.
func fileInTheWay(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mail.txt")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// unwritable is a directory in which no file can be created. Permission bits do not
// stop root, but nobody can create files in /proc.
func unwritable(t *testing.T) string {
	t.Helper()
	if os.Geteuid() == 0 {
		return "/proc"
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNew_without_Dir(t *testing.T) {
	t.Parallel()
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "Dir is required") {
		t.Errorf("%v, want that Dir is required", err)
	}
}

// t.Chdir does not go with t.Parallel.
func TestNew_relative_Dir(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	t.Chdir(first)
	b := newBackend(t, "mail")
	t.Chdir(second)
	if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{message("A")}); sent != 1 || err != nil {
		t.Fatal(sent, err)
	}
	if got := len(entries(t, filepath.Join(first, "mail"))); got != 1 {
		t.Errorf("%d messages in the first working directory, want 1", got)
	}
}

func TestBackend_Open_file(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	b := newBackend(t, dir)
	for range 3 {
		if _, err := b.Open(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, subject := range []string{"A", "B"} {
			if sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{message(subject)}); sent != 1 || err != nil {
				t.Fatal(sent, err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	paths := files(t, dir)
	if len(paths) != 3 || len(entries(t, dir)) != 6 {
		t.Errorf("%d files with %d messages, want 3 with 6", len(paths), len(entries(t, dir)))
	}
	name := regexp.MustCompile(`^\d{8}-\d{6}-\d{6}-\d+\.log$`)
	for _, path := range append(paths, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
		if path != dir && !name.MatchString(info.Name()) {
			t.Errorf("a file is named %s", info.Name())
		}
	}
}

// Each entry is as the console shows it.
func TestBackend_SendMessages_entry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if sent, err := newBackend(t, dir).SendMessages(t.Context(), []*mailer.EmailMessage{message("A"), message("B\nC"), message("D")}); sent != 2 || err == nil {
		t.Fatalf("%d, %v; want 2 and an error for the second message", sent, err)
	}
	all := entries(t, dir)
	if len(all) != 2 || !bytes.Contains(all[0], []byte("\nSubject: A\n")) || !bytes.Contains(all[1], []byte("\nSubject: D\n")) {
		t.Fatalf("%q", all)
	}
	for _, entry := range all {
		if bytes.Contains(entry, []byte("\r")) || bytes.Contains(entry, []byte("bcc@")) {
			t.Errorf("a CR or the blind copy is in %q", entry)
		}
	}
}

// As many processes, many backends share a directory.
func TestBackend_many_in_one_directory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const backends = 20
	var wg sync.WaitGroup
	for range backends {
		b := newBackend(t, dir)
		wg.Go(func() {
			batch := slices.Repeat([]*mailer.EmailMessage{message("A")}, 10)
			if sent, err := b.SendMessages(t.Context(), batch); sent != len(batch) || err != nil {
				t.Errorf("%d, %v", sent, err)
			}
		})
	}
	wg.Wait()
	if got := len(files(t, dir)); got != backends {
		t.Errorf("%d files, want one for each of %d backends", got, backends)
	}
	if got := len(entries(t, dir)); got != 10*backends {
		t.Errorf("%d messages, want %d", got, 10*backends)
	}
}

// fullDisk writes half of a message with "lost" in it.
type fullDisk struct {
	*os.File
	truncate error
}

func (f fullDisk) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte("lost")) {
		return f.File.Write(p)
	}
	n, err := f.File.Write(p[:len(p)/2])
	return n, errors.Join(err, syscall.ENOSPC)
}

func (f fullDisk) Truncate(size int64) error {
	if f.truncate != nil {
		return f.truncate
	}
	return f.File.Truncate(size)
}

func TestBackend_SendMessages_disk_full(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		truncate error
		files    int // in which the messages before and after the lost one are
	}{
		{"what was written is taken back", nil, 1},
		{"it cannot be taken back", syscall.EIO, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := newBackend(t, dir)
			if _, err := b.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.file = fullDisk{File: b.file.(*os.File), truncate: tt.truncate}
			sent, err := b.SendMessages(t.Context(), []*mailer.EmailMessage{message("A"), message("lost"), message("B")})
			if sent != 2 || mailer.ErrorAt(err, 0) != nil || mailer.ErrorAt(err, 2) != nil {
				t.Errorf("sent %d, %v; want all but the second message", sent, err)
			}
			if lost := mailer.ErrorAt(err, 1); !errors.Is(lost, syscall.ENOSPC) || mailer.ClassOf(lost) != mailer.Unavailable {
				t.Errorf("lost message: %v of the class %v", lost, mailer.ClassOf(lost))
			}
			if opened, err := b.Open(t.Context()); opened || err != nil {
				t.Errorf("Open: %t, %v; want that it was left open", opened, err)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
			paths := files(t, dir)
			if len(paths) != tt.files {
				t.Errorf("%d files, want %d", len(paths), tt.files)
			}
			if !lastHas(t, paths[len(paths)-1], "Subject: B\n") {
				t.Error("the last message is not in the last file")
			}
			if tt.truncate == nil && len(entries(t, dir)) != 2 {
				t.Error("there is more than two whole messages in the file")
			}
		})
	}
}

// lastHas reports whether the last message of a file has the text in it.
func lastHas(t *testing.T, path, text string) bool {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	parts := bytes.Split(content, separator)
	return len(parts) > 1 && bytes.Contains(parts[len(parts)-2], []byte(text))
}
