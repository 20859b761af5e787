# stub: nokogiri 1.15.4 java lib
