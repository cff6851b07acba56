"""Reports a person enjoys reading: text, tables, charts, trees and pictures in one file."""
