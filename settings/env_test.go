package settings

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// setenv gives the test an environment with these variables, and no others that
// this package reads or warns about.
func setenv(t *testing.T, vars map[string]string) {
	t.Helper()
	names := variablesOf(fields(&Settings{}))
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		t.Setenv(name, "") // for its restoring
		if err := os.Unsetenv(name); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range vars {
		t.Setenv(name, value)
	}
}

// load fails the test if there are problems.
func load(t *testing.T, vars map[string]string) (Settings, []string) {
	t.Helper()
	setenv(t, vars)
	s, warnings, err := Load()
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return s, warnings
}

// lines returns the lines of Load's error.
func lines(t *testing.T, vars map[string]string) []string {
	t.Helper()
	setenv(t, vars)
	_, _, err := Load()
	if err == nil {
		return nil
	}
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatalf("Load's error is a %T and not Problems", err)
	}
	all := strings.Split(err.Error(), "\n")
	if len(all) != len(problems) {
		t.Errorf("%d problems in %d lines:\n%v", len(problems), len(all), err)
	}
	return all
}
