package repo

import (
	"bytes"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A public type that is an alias of one in an internal package shows its fields and methods in its comment: go doc shows no
// more of it than that.
func TestGenerated_aliases(t *testing.T) {
	const dir = "../../../tasks"
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := 0
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		source := read(t, path)
		want := source
		for _, a := range aliases(t, path, source) {
			found++
			want = strings.Replace(want, a.comment, a.intro()+shown(t, filepath.Join("../../..", a.pkg), a.name), 1)
		}
		if want == source {
			continue
		}
		if !*write {
			t.Errorf("%s does not show what its aliases stand for: run make docs", path)
		} else if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Error(err)
		}
	}
	if found < 10 {
		t.Errorf("%d aliases, want at least 10", found)
	}
}

// alias is a type of an internal package that a public one names.
type alias struct{ pkg, name, comment string }

// aliases are those of a file.
func aliases(t *testing.T, path, source string) []alias {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	imports := map[string]string{}
	for _, i := range file.Imports {
		if own, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module+"/"); ok && strings.Contains(own, "internal/") {
			imports[filepath.Base(own)] = own
		}
	}
	var list []alias
	for _, d := range file.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE || g.Lparen.IsValid() {
			continue
		}
		spec, _ := g.Specs[0].(*ast.TypeSpec)
		of, ok := spec.Type.(*ast.SelectorExpr)
		if !ok || !spec.Assign.IsValid() || !spec.Name.IsExported() {
			continue
		}
		if from, _ := of.X.(*ast.Ident); imports[from.Name] != "" {
			list = append(list, alias{imports[from.Name], of.Sel.Name, source[g.Doc.Pos()-1 : g.Doc.End()-1]})
		}
	}
	return list
}

// intro is the comment without what is shown of the type.
func (a alias) intro() string {
	text, _, _ := strings.Cut(a.comment, "\n//\n//\t")
	return text
}

// shown is what is exported of a type, with its comments, as a part of a comment.
func shown(t *testing.T, dir, name string) string {
	t.Helper()
	paths, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(path, "_test.go") {
			files = append(files, file)
		}
	}
	pkg, err := doc.NewFromFiles(set, files, module)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(pkg.Types, func(typ *doc.Type) bool { return typ.Name == name })
	if i < 0 {
		t.Fatalf("%s has no %s", dir, name)
	}
	var text bytes.Buffer
	add := func(comment string, decl ast.Decl) {
		for line := range strings.Lines(comment) {
			text.WriteString("// " + line)
		}
		if err := format.Node(&text, set, decl); err != nil {
			t.Fatal(err)
		}
		text.WriteString("\n\n")
	}
	typ := pkg.Types[i]
	add("", typ.Decl)
	for _, m := range typ.Methods {
		add(m.Doc, m.Decl)
	}
	var comment strings.Builder
	comment.WriteString("\n//")
	for line := range strings.SplitSeq(strings.TrimSpace(text.String()), "\n") {
		if line = strings.Replace(line, "contains filtered or unexported fields", "Has unexported fields.", 1); line != "" {
			line = "\t" + line
		}
		comment.WriteString("\n//" + line)
	}
	return comment.String()
}
