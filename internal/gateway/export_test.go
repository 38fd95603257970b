package gateway

// What tests of this package look at from outside.
var (
	SuggestName = suggestName
	CheckName   = checkName
	FoldName    = foldName
)
