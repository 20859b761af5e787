Gem::Specification.new do |s|
  s.name = "json"
  s.version = Gem::Version.new("2.6.1")
end
