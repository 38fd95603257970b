package gateway

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/previewd/previewd"
	"github.com/previewd/previewd/internal/store"
)

const (
	maxName       = 80 // characters
	suggestedName = 40
)

// checkName returns a name as it is stored. It returns CodeInvalid for one that
// cannot be shown.
func checkName(name string) (string, error) {
	if !utf8.ValidString(name) {
		return "", invalid("name must be UTF-8 text.", "name")
	}
	name = strings.Join(strings.Fields(norm.NFC.String(name)), " ")
	switch {
	case name == "":
		return "", invalid("name is empty.", "name")
	case utf8.RuneCountInString(name) > maxName:
		return "", invalid(fmt.Sprintf("name is longer than %d characters.", maxName), "name")
	case strings.Map(previewd.Harmless, name) != name || strings.ContainsFunc(name, unicode.IsControl):
		return "", invalid("name must not hold control characters or marks of text direction.", "name")
	}
	return name, nil
}

// foldName is what names are compared by: "My App" and "my app" are one.
func foldName(name string) string { return cases.Fold().String(norm.NFKC.String(name)) }

// suggestName makes a name of a prompt's first words, or of the template's.
func suggestName(prompt, template string) string {
	var b strings.Builder
	for _, word := range strings.Fields(norm.NFC.String(strings.Map(previewd.Harmless, strings.ToValidUTF8(prompt, "")))) {
		word = strings.TrimFunc(word, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) })
		if word == "" {
			continue
		}
		if b.Len() > 0 && utf8.RuneCountInString(b.String())+1+utf8.RuneCountInString(word) > suggestedName {
			break
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	name := b.String()
	if runes := []rune(name); len(runes) > suggestedName {
		name = string(runes[:suggestedName])
	}
	if name == "" {
		name = template
	}
	if name == "" {
		name = "project"
	}
	first, size := utf8.DecodeRuneInString(name)
	return string(unicode.ToUpper(first)) + name[size:]
}

// nameTries bounds how many numbered names are tried.
const nameTries = 10_000

// reserveSuggested gives the intent the name that was suggested, or the first of
// it with a number that the user does not have.
func reserveSuggested(ctx context.Context, tx *store.DB, in *store.Intent) error {
	suggested := in.Name
	if ok, err := tx.ReserveName(ctx, in.UserID, foldName(suggested), in.ID); err != nil || ok {
		return err
	}
	taken := map[string]bool{}
	names, err := tx.ListNames(ctx, in.UserID, foldName(suggested), nameTries)
	if err != nil {
		return err
	}
	for _, name := range names {
		taken[name] = true
	}
	for n := 2; n <= nameTries; n++ {
		name := fmt.Sprintf("%s %d", suggested, n)
		if taken[foldName(name)] {
			continue
		}
		if ok, err := tx.ReserveName(ctx, in.UserID, foldName(name), in.ID); err != nil || ok {
			in.Name = name
			return err
		}
	}
	return invalid("Give the project a name: every name like it is taken.", "name")
}

func nameTaken(name string) *previewd.Error {
	return &previewd.Error{
		Code: previewd.CodeNameTaken, Message: "You have a project of this name: choose another, or leave name out to get one.", Details: name,
	}
}

func invalid(message, details string) *previewd.Error {
	return &previewd.Error{Code: previewd.CodeInvalid, Message: message, Details: details}
}
