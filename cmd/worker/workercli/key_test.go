package workercli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mailpouch/mailpouch/backends"
	"github.com/mailpouch/mailpouch/intake"
)

// A key's secret is shown once, and the file has all else.
func TestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	t.Setenv("EMAIL_API_KEYS_FILE", path)
	run := func(args ...string) result {
		t.Helper()
		return worker(t.Context(), t, backends.Builtin(), append([]string{"key"}, args...)...)
	}
	made := run("new", "shop", "--from", "example.com,.example.org", "--mailer", "marketing", "--queue", "bulk", "--rate", "100/s,50000/d", "--may", "queue,tags")
	secret := strings.TrimSuffix(made.out, "\n")
	if made.code != 0 || !strings.HasPrefix(secret, "mp_") || strings.ContainsAny(secret, " \n") || !strings.Contains(made.err, path) || strings.Contains(made.err, secret) {
		t.Fatalf("exit %d: %s%s", made.code, made.out, made.err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	keys, err := intake.ReadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key := keys.Find(secret)
	if key == nil || key.Name != "shop" || strings.Join(key.From, " ") != "example.com .example.org" || key.Mailer != "marketing" || key.Queue != "bulk" ||
		key.Rate.String() != "100/s, 50000/d" || fmt.Sprint(key.Choices) != "[queue tags]" {
		t.Errorf("got %+v", key)
	}
	// A worker of another user may read it as a member of the file's group, and still can.
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if got := run("new", "other"); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	if got := run("remove", "other"); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	// What people have written beside the keys stays.
	text, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append([]byte("# of the shop\n\n"), strings.TrimSuffix(string(text), "\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run("new", "news", "--may", ""); got.code != 0 {
		t.Fatalf("exit %d: %s", got.code, got.err)
	}
	list := run("list")
	if lines := strings.Split(list.out, "\n"); list.code != 0 || len(lines) != 4 || strings.Join(strings.Fields(lines[1]), " ") != "shop example.com,.example.org marketing bulk 100/s, 50000/d queue,tags" ||
		strings.Join(strings.Fields(lines[2]), " ") != "news anybody - - - -" {
		t.Errorf("exit %d:\n%s", list.code, list.out)
	}
	before, _ := os.ReadFile(path)
	if strings.Contains(string(before), secret) || !strings.HasPrefix(string(before), "# of the shop\n\n{") {
		t.Errorf("the file: %s", before)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"new", "shop"}, 64, "there is a key shop already"},
		{[]string{"new", "a b"}, 64, `name: "a b" is not`},
		{[]string{"new", "x", "--from", "a@"}, 64, `--from: "a@" is neither`},
		{[]string{"new", "x", "--from", ""}, 64, "--from: is empty"},
		{[]string{"new", "x", "--from", " ,"}, 64, "--from: is empty"},
		{[]string{"new", "x", "--rate", ""}, 64, "--rate: is empty"},
		{[]string{"new", "x", "--rate", "many"}, 64, `--rate: "many" is not a rate`},
		{[]string{"new", "x", "--may", "all"}, 64, `--may: "all" is no choice`},
		{[]string{"new", "x", "--queue", "{q}"}, 64, "{q}"},
		{[]string{"new", "x", "--mailer", "a b"}, 64, "a b"},
		{[]string{"new"}, 64, "accepts 1 arg"},
		{[]string{"remove", "nobody"}, 1, "there is no key nobody"},
		{[]string{"list", "--file", path + "x"}, 78, "no such file"},
		{[]string{"new", "x", "--file", path + "x/keys"}, 78, "there is no directory " + path + "x for the file of keys: make it"},
		{[]string{"remove", "shop", "--file", filepath.Dir(path)}, 78, "is a directory"},
	} {
		if got := run(tt.args...); got.code != tt.code || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%q: exit %d, want %d: %s%s", tt.args, got.code, tt.code, got.out, got.err)
		}
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Errorf("a command that failed has changed the file: %s", after)
	}
	if got := run("remove", "shop"); got.code != 0 {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
	if keys, err = intake.ReadKeysFile(path); err != nil || keys.Find(secret) != nil || len(keys.All()) != 1 {
		t.Errorf("%+v, %v", keys, err)
	}
	if after, _ := os.ReadFile(path); !strings.HasPrefix(string(after), "# of the shop\n\n{") {
		t.Errorf("the file: %s", after)
	}

	if err := os.WriteFile(path, []byte(string(before)+"{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"new", "y"}, {"remove", "shop"}, {"list"}} {
		if got := run(args...); got.code != 78 || !strings.Contains(got.err, "line 5: ") {
			t.Errorf("%q: exit %d: %s", args, got.code, got.err)
		}
	}
	t.Setenv("EMAIL_API_KEYS_FILE", "")
	if got := run("list"); got.code != 64 || !strings.Contains(got.err, "EMAIL_API_KEYS_FILE is not set: name the file of keys there, or with --file") {
		t.Errorf("exit %d: %s", got.code, got.err)
	}
}

// Of several keys that are made at once none is lost.
func TestKey_atOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	const n = 8
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if got := worker(t.Context(), t, backends.Builtin(), "key", "new", fmt.Sprint("k", i), "--file", path); got.code != 0 {
				t.Errorf("exit %d: %s", got.code, got.err)
			}
		})
	}
	all.Wait()
	keys, err := intake.ReadKeysFile(path)
	if err != nil || len(keys.All()) != n {
		t.Errorf("%+v, %v", keys, err)
	}
}
