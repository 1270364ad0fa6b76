"""One script per published table or comparison; results/ holds what they wrote."""
